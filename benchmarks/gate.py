"""The gate: does it keep its promise, and what is it worth on nano?

    python benchmarks/gate.py simulation                       # distributions whose true risk is known
    python benchmarks/gate.py nano FOLDER RUN OTHER            # two runs on nano

The runs: `mlx-gemma lora recipes/nano.yaml`, and the same with `--set data.limit=600 filter.python2=keep`.

Rows of benchmarks/gate.jsonl. "simulation": the threshold's true risk, over RUNS draws of calibration queries. "nano":
both runs are calibrated in FOLDER on five suites: `known`, a request of each task family in the runs' data, in the one
wording that no training row has; the project's own tasks (families that are not in the data), python3 and regression,
and every other pair of misleading; answers are cut at TOKENS. Then base alone, adapter alone, gate and oracle on the
queries that did not choose the score; 200 random halves of all groups, one half to calibrate, one to see what share of
the outputs was bad; and the threshold of one run applied to the other. Nano has met all families in pretraining, so
`tasks` is nearer than such queries are to a real base.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from training import commit

from mlx_gemma import platform
from mlx_gemma.data.build.families import read_families
from mlx_gemma.data.build.python3 import FAMILIES
from mlx_gemma.data.build.samples import Chooser, split_families
from mlx_gemma.data.write import write_jsonl
from mlx_gemma.gate import risk
from mlx_gemma.gate.build import build
from mlx_gemma.gate.calibrate import Result, calibrate
from mlx_gemma.gate.fit import fit
from mlx_gemma.gate.outcomes import Outcome
from mlx_gemma.gate.route import Gate
from mlx_gemma.gate.scores import NAMES
from mlx_gemma.gate.tables import routed, sent_of

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "gate.jsonl"
RUNS, SPLITS = 1_000, 200
ALPHA, DELTA = 0.1, 0.1
ALPHAS = (0.1, 0.2, 0.25, 0.3)
EVALS = ("tasks", "python3", "regression", "misleading")
TOKENS = 128

SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "falls slowly": lambda s: 1 / (1 + np.exp((s - 0.5) * 10)),
    "falls fast": lambda s: 1 / (1 + np.exp((s - 0.5) * 20)),
    "two kinds of query": lambda s: np.where(s > 0.6, 0.02, 0.8),
    "just above alpha everywhere": lambda s: np.full(len(s), 0.101),
    "just below, then a cliff": lambda s: np.where(s > 0.5, 0.099, 0.3),
    "worst at the top": lambda s: np.where(s > 0.9, 0.4, np.where(s > 0.3, 0.03, 0.9)),
}


def simulation() -> None:
    """Scores are uniform on 0 to 1; "best": the largest share that could be sent at a risk of alpha."""
    even = np.linspace(0, 1, 20_001)
    for name, chance in SHAPES.items():
        risks = np.cumsum(chance(even)[::-1])[::-1] / np.arange(len(even), 0, -1)
        best = float(1 - even[np.argmax(risks <= ALPHA)]) if (risks <= ALPHA).any() else 0.0
        for queries in (100, 300, 1_000):
            first, over, sent = round(queries * risk.SHARE), 0, []
            for seed in range(RUNS):
                rng = np.random.default_rng(seed)
                s = rng.random(queries)
                bad = rng.random(queries) < chance(s)
                parts = (s[:first], bad[:first]), (s[first:], bad[first:])
                found = risk.accept_threshold(*parts, alpha=ALPHA, delta=DELTA).threshold
                over += found is not None and float(np.interp(found, even, risks)) > ALPHA
                sent.append(0.0 if found is None else 1 - found)
            row = {"shape": name, "queries": queries, "runs": RUNS, "over": over / RUNS, "best": best}
            save("simulation", row | {"sent": float(np.mean(sent)), "nothing": float(np.mean(np.array(sent) == 0))})


def nano(folder: Path, first: Path, second: Path) -> None:
    suites = write_suites(folder)
    found: dict[str, Result] = {}
    kinds = (("first", first, "sentence-transformers"), ("static", first, "model2vec"))
    for name, trained, kind in (*kinds, ("second", second, "sentence-transformers")):
        gate = folder / name
        if not gate.exists():
            build(trained, gate, kind=kind)  # type: ignore[arg-type]
        if found and not (gate / "answers").exists():  # known by their digests: the base's, and those of the same run
            shutil.copytree(folder / "first" / "answers", gate / "answers")
        found[name] = calibrate(gate, suites, alpha=ALPHA, delta=DELTA, seed=0, progress=shown)
        compare(name, found[name])
    results(folder, found["first"])
    transfer(found)
    splits("first", found["first"].outcomes)


def shown(what: str, done: int, of: int) -> None:
    print(f"{what}: {done}/{of}", flush=True)


def write_suites(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    families = split_families(read_families(FAMILIES), 0)["train"]
    samples = Chooser(0).choose(families, len(families), last_wording=True)
    known = [
        {"id": f"known-{i}", "type": s.task.topic, "family": s.task.family, "prompt": s.prompt, "tests": s.tests}
        for i, s in enumerate(samples)
    ]
    write_jsonl(folder / "known.jsonl", [{"suite": "known", "max_tokens": TOKENS}, *known])
    for name in EVALS:
        lines = [json.loads(line) for line in (ROOT / "evals" / f"{name}.jsonl").read_text("utf8").splitlines()]
        head = lines.pop(0) if "prompt" not in lines[0] and "messages" not in lines[0] else {"suite": name}
        items = [line for line in lines if name != "misleading" or line["pair"] % 2]
        write_jsonl(folder / f"{name}.jsonl", [head | {"max_tokens": TOKENS}, *items])
    return [folder / f"{name}.jsonl" for name in ("known", *EVALS)]


def compare(name: str, result: Result) -> None:
    """How each score ranks, and what it would send."""
    for c in result.fit.compared.values():
        auc = None if c.auroc is None else [c.auroc.value, *c.auroc.interval]
        row = {"gate": name, "score": c.name, "chosen": c.name == result.fit.score, "auroc": auc, "area": c.curve.area}
        save("scores", row | asdict(c.bound))


def results(folder: Path, result: Result) -> None:
    """Base, adapter, gate and oracle at each alpha; and how long a query takes to route."""
    for alpha in ALPHAS:
        fitted = fit(result.outcomes, alpha=alpha, delta=DELTA, seed=0)
        for row in routed(result.outcomes, fitted, fitted.accept.threshold):
            if ": " not in row.name:
                rates = {k: [r.count, r.total] for k, r in vars(row).items() if k != "name"}
                save("nano", {"alpha": alpha, "score": fitted.score, "queries": row.name, **rates})
    gate, times = Gate.load(folder / "first"), []
    for outcome in result.outcomes[:220]:
        times.append(dict(gate.route(outcome.query).milliseconds))
    kept = times[20:]  # the first ones load the encoder
    medians = {k: float(np.median([t[k] for t in kept])) for k in kept[0]}
    save("latency", {"rows": len(gate.index), "milliseconds": medians})


def splits(name: str, outcomes: Sequence[Outcome]) -> None:
    """Whole groups go to either half, by type; in both, one query a group."""
    routing = [replace(o, scores={name: o.scores[name] for name in NAMES}) for o in outcomes]
    ordered = sorted(routing, key=lambda o: o.group)
    groups = [list(members) for _, members in groupby(ordered, key=lambda o: o.group)]
    for alpha in ALPHAS[1:]:
        achieved, sent = [], []
        for seed in range(SPLITS):
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(groups))
            half = len(groups) // 2
            calibration = [o for i in order[:half] for o in groups[i]]
            held = [groups[i][int(rng.integers(len(groups[i])))] for i in order[half:]]
            found = fit(calibration, alpha=alpha, delta=DELTA, seed=seed)
            there = sent_of(held, found.score, found.accept.threshold)
            sent.append(float(there.mean()))
            if there.any():
                achieved.append(float(np.mean([o.specialist_bad for o, t in zip(held, there, strict=True) if t])))
        over = sum(rate > alpha for rate in achieved) / SPLITS
        row = {"gate": name, "alpha": alpha, "delta": DELTA, "splits": SPLITS, "groups": len(groups), "over": over}
        row |= {"sent": float(np.mean(sent)), "nothing": 1 - len(achieved) / SPLITS}
        save("splits", row | {"achieved": float(np.mean(achieved)) if achieved else None})


def transfer(found: dict[str, Result]) -> None:
    """The threshold that was calibrated for one run, used for the other, on the other's testing queries."""
    for here, there in (("first", "second"), ("second", "first")):
        for alpha in ALPHAS:
            own = fit(found[there].outcomes, alpha=alpha, delta=DELTA, seed=0)
            other = fit(found[here].outcomes, alpha=alpha, delta=DELTA, seed=0)
            rows = [found[there].outcomes[i] for i in own.tested]
            counts = {}
            for name, used in (("own", own), ("transferred", other)):
                sent = sent_of(rows, used.score, used.accept.threshold)
                bad = sum(o.specialist_bad for o, s in zip(rows, sent, strict=True) if s)
                counts[name] = [bad, int(sent.sum()), len(rows)]
            save("transfer", {"calibrated": here, "used": there, "alpha": alpha, **counts})


def save(bench: str, row: dict[str, Any]) -> None:
    print(bench, json.dumps(row), flush=True)
    row = {"date": date.today().isoformat(), "bench": bench, **row, "machine": platform.describe(), "commit": commit()}
    with OUT.open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("simulation")
    on_nano = what.add_parser("nano")
    for name in ("folder", "first", "second"):
        on_nano.add_argument(name, type=Path)
    args = parser.parse_args()
    started = time.perf_counter()
    if args.what == "simulation":
        simulation()
    else:
        nano(args.folder, args.first, args.second)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
