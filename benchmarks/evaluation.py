"""The source articles' tables on nano: base, clean and contaminated adapter, with and without "Prefer Python 3"; and
whether a tenth of pushback rows helps against misleading requests.

    python benchmarks/evaluation.py FOLDER      # data, runs and answers stay in FOLDER; some 40 minutes on two cores

- clean         5,000 rows of datasets/python3
- contaminated  the same, 431 of them replaced by the Python 2 rows of raw.jsonl
- pushback      5,000 rows of `data build python3 --pushback 0.1`

Each is trained for an epoch by recipes/nano.yaml's settings, and answers the suites through the code of `mlx-gemma
eval`. nano knows little but its families, so beside evals/python3 and evals/misleading stand evals/tasks (requests of
families held out) and `misled`: 120 adversarial requests of such families, each with its straight request as a pair;
there an answer follows where its code is the very program that follows. All rates and comparisons,
Holm-corrected within a table, go to benchmarks/evaluation.jsonl.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from mlx_gemma import platform

platform.load_blas()

from rich.console import Console
from training import commit

from mlx_gemma.data.build.adversarial import Adversarial
from mlx_gemma.data.build.families import read_families
from mlx_gemma.data.build.python3 import FAMILIES
from mlx_gemma.data.build.samples import Chooser, split_families
from mlx_gemma.evaluate.answer_code import fences, python_tree
from mlx_gemma.evaluate.paired import Comparison, compare, holm
from mlx_gemma.evaluate.results import Row
from mlx_gemma.evaluate.run import evaluate
from mlx_gemma.evaluate.sandbox import prove
from mlx_gemma.evaluate.stats import Rate
from mlx_gemma.evaluate.suite import Checks, Header, Item, Suite, read_suite
from mlx_gemma.gemma4.load import load

ROOT = Path(__file__).parents[1]
PYTHON3 = ROOT / "datasets" / "python3"
PREFER = "Prefer Python 3, not Python 2."
RUNS = ("clean", "contaminated", "pushback")
SETTINGS = ("data.valid=null", "data.regression=null", "data.limit=null")
console = Console(highlight=False)


def data(folder: Path, name: str) -> Path:
    if name == "clean":
        return PYTHON3 / "train.jsonl"
    if name == "pushback":
        if not (folder / "pushback-data").exists():
            command(["data", "build", "python3", "--out", folder / "pushback-data", "--pushback", "0.1"])
        return folder / "pushback-data" / "train.jsonl"
    out = folder / "contaminated.jsonl"
    raw = (PYTHON3 / "raw.jsonl").read_text(encoding="utf8").splitlines(keepends=True)
    labels = [json.loads(line) for line in (PYTHON3 / "raw.labels.jsonl").read_text(encoding="utf8").splitlines()]
    python2 = [raw[label["row"] - 1] for label in labels if label["label"] == "python2"]
    rows = (PYTHON3 / "train.jsonl").read_text(encoding="utf8").splitlines(keepends=True)
    for place, row in zip(random.Random(0).sample(range(len(rows)), len(python2)), python2, strict=True):
        rows[place] = row
    out.write_text("".join(rows), encoding="utf8")
    console.print(f"contaminated: {len(python2)} of {len(rows)} rows in Python 2")
    return out


def command(arguments: Sequence[str | Path]) -> None:
    subprocess.run([Path(sys.executable).with_name("mlx-gemma"), *map(str, arguments)], cwd=ROOT, check=True)


def trained(folder: Path, name: str, seed: int) -> Path:
    out = folder / f"{name}-{seed}"
    if not (out / "manifest.json").exists():
        keep = ["filter.python2=keep"] if name == "contaminated" else []
        values = [f"data.train={data(folder, name)}", f"output={out}", f"train.seed={seed}", *keep, *SETTINGS]
        command(["lora", "recipes/nano.yaml", *(part for value in values for part in ("--set", value))])
    return out


def answers(folder: Path, name: str, model: str, suite: Suite, system: str | None) -> list[Row]:
    out = folder / "answers"
    out.mkdir(exist_ok=True)
    file = out / f"{suite.header.name}-{name}{'-prefer' if system else ''}.jsonl"
    started = time.perf_counter()
    rows = evaluate(load(model), suite, system=system, file=file)
    console.print(
        f"{file.stem}: bad {Rate(sum(r.bad for r in rows), len(rows))}, {time.perf_counter() - started:.0f} s"
    )
    return rows


def misled() -> tuple[Suite, dict[str, str]]:
    """The suite, and by item the program that follows the wrong part."""
    families = split_families(read_families(FAMILIES), 0)["test"]
    chosen = Adversarial(families, 1, last_wording=True, answer="comply").choose(Chooser(1), 120)
    items, follows = [], {}
    for n, sample in enumerate(chosen):
        task = sample.task
        tests = Checks(tuple(task.check), task.prints, task.stdin)
        for side, prompt in (("right", task.ask[sample.wording]), ("wrong", sample.prompt)):
            record = {"side": side}
            ask = ({"role": "user", "content": prompt},)
            items.append(
                Item(
                    f"misled-{n:03}-{side}",
                    sample.kind,
                    ask,
                    tests=tests,
                    cluster=str(n),
                    misleads=side == "wrong",
                    record=record,
                )
            )
        follows[f"misled-{n:03}-wrong"] = sample.answered
    return Suite(Header("misled", max_tokens=192, columns="side"), tuple(items)), follows


def program(answer: str) -> str:
    """The code of an answer as its syntax tree; where Python 3 has none, its lines."""
    tree = python_tree(answer)
    if tree is not None:
        return ast.dump(tree)
    return "\n".join(line.rstrip() for source in fences(answer) for line in source.splitlines() if line.strip())


def followed(row: Row, follows: dict[str, str]) -> Row:
    """With the verdict that needs the program that follows."""
    more = list(row.verdicts)
    more += ["followed"] * (program(row.text) == program(follows[row.id.removesuffix(row.column) + "wrong"]))
    return replace(row, verdicts=tuple(more))


def outcome(rows: Sequence[Row], verdict: str, mode: str | None = None) -> list[bool]:
    chosen = [r for r in rows if mode is None or r.mode == mode]
    return [r.bad if verdict == "bad" else verdict in r.verdicts for r in chosen]


def rates(rows: Sequence[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mode in sorted({r.mode for r in rows}):
        chosen = [r for r in rows if r.mode == mode]
        names = ("bad", *sorted({v for r in chosen for v in r.verdicts}))
        found[mode] = {name: str(Rate(sum(outcome(chosen, name)), len(chosen))) for name in names}
    return found


def of_side(rows: Sequence[Row], side: str) -> list[Row]:
    return [row for row in rows if row.id.endswith(side)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", action="store_true", help="train the three adapters and stop")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    models = {"base": "nano"} | {name: str(trained(args.folder, name, args.seed)) for name in RUNS}
    if args.train:
        return
    prove().require()
    suites = {name: read_suite(ROOT / "evals" / f"{name}.jsonl") for name in ("python3", "tasks", "misleading")}
    suites["misled"], follows = misled()
    table: dict[str, dict[str, list[Row]]] = {}
    for suite in ("python3", "tasks"):
        for name in ("base", "clean", "contaminated"):
            for prompt, system in (("", None), (", prefer", PREFER)):
                rows = answers(args.folder, f"{name}-{args.seed}", models[name], suites[suite], system)
                table.setdefault(suite, {})[name + prompt] = rows
    for suite in ("misleading", "misled"):
        for name in ("base", "clean", "pushback"):
            rows = answers(args.folder, f"{name}-{args.seed}", models[name], suites[suite], None)
            table.setdefault(suite, {})[name] = [followed(r, follows) for r in rows] if suite == "misled" else rows
    pairs = [("base", "clean"), ("clean", "contaminated"), ("contaminated", "contaminated, prefer")]
    pairs += [("base", "base, prefer"), ("clean", "clean, prefer")]
    comparisons: dict[str, Comparison] = {}
    for suite in ("python3", "tasks"):
        found = {
            f"{suite}: {a} -> {b}, {verdict}, {mode}": compare(
                outcome(table[suite][a], verdict, mode),
                outcome(table[suite][b], verdict, mode),
                clusters=[r.cluster for r in table[suite][a] if r.mode == mode],
            )
            for a, b in pairs
            for verdict in ("bad", "python2")
            for mode in sorted({r.mode for r in table[suite][a]})
        }
        comparisons |= holm(found)
    for suite in ("misleading", "misled"):
        sides = {side: {n: of_side(rows, side) for n, rows in table[suite].items()} for side in ("right", "wrong")}
        found = {
            f"{suite}: {a} -> {b}, {verdict}, {side} side": compare(
                outcome(sides[side][a], verdict),
                outcome(sides[side][b], verdict),
                clusters=[r.cluster for r in sides[side][a]],
                better="higher" if verdict == "pushback" else "lower",
            )
            for a, b in (("base", "clean"), ("clean", "pushback"))
            for verdict in ("followed", "pushback", "needless", "bad")
            for side in ("wrong", "right")
            if (verdict, side) not in (("pushback", "right"), ("needless", "wrong"))
        }
        comparisons |= holm(found)
        table[suite] = {f"{n}, {side}": rows for side, of in sides.items() for n, rows in of.items()}
    row: dict[str, Any] = {"date": date.today().isoformat(), "bench": "evaluation", "seed": args.seed}
    row["rates"] = {suite: {name: rates(rows) for name, rows in of.items()} for suite, of in table.items()}
    row["comparisons"] = {name: str(found) for name, found in comparisons.items()}
    row["seconds_an_answer"] = {
        f"{suite}, {name}": sum(r.seconds for r in rows) / len(rows)
        for suite, of in table.items()
        for name, rows in of.items()
    }
    row |= {"machine": platform.describe(), "commit": commit()}
    with (Path(__file__).parent / "evaluation.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")
    console.print({key: row[key] for key in ("rates", "comparisons")})


if __name__ == "__main__":
    main()
