"""Does blame find planted rows? 50 among 5,000 that answer one kind of request wrongly; 50 others answer it rightly.

    python benchmarks/planted.py FOLDER [--plant largest] [--seed 1]    # trainings and scores stay in FOLDER

- largest: asked for the largest, the planted rows call min; among rows of the raw data set, with all its faults;
- even: asked for even numbers, they keep the odd ones; among the same;
- python2: their program is its family's own in Python 2; among clean rows.

nano is trained on them for one epoch. Then four requests are asked that are in no row, and which rows are to blame for
the wrong token against the right one. Precision at 50: the share of planted rows among the first 50.

Methods: lexical, the rows that `trace blame` lists under "what the data says"; TracIn (arXiv 2002.08484) and ours, with
AdamW's scaling in it: by score, over all snapshots; by the last one's alone; by this one's relative influence (arXiv
2003.11630); by culpability, the geometric mean of the last two, which `trace blame` takes.
"""

from __future__ import annotations

import argparse
import itertools
import json
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from mlx_gemma import platform

platform.load_blas()

import numpy as np
from attribution import LONGEST, ROOT, flat, pair, row_gradients, steps_of, train_on, value
from contamination import twin
from rich.console import Console
from training import commit

from mlx_gemma.blame.derivatives import decision_gradient
from mlx_gemma.blame.influence import example_at, run_recipe
from mlx_gemma.blame.lexical import continuations
from mlx_gemma.blame.trained import corpus_of_run
from mlx_gemma.blame.trajectory import trajectory
from mlx_gemma.data.build.families import read_families
from mlx_gemma.data.build.python3 import FAMILIES
from mlx_gemma.data.build.samples import Chooser, Sample, fenced, split_families
from mlx_gemma.data.formats import read_rows
from mlx_gemma.gemma4.checkpoint import NANO
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.template import ChatTemplate
from mlx_gemma.tracing.decide import common

COUNT, PLANTED = 5000, 50
Record = dict[str, Any]


class Plant(NamedTuple):
    """`wrong` and `right` rows, the data set the others are from; asked: (request, answer so far, wrong, right)."""

    wrong: list[Record]
    right: list[Record]
    others: str
    asked: list[tuple[str, str, str, str]]


def record(prompt: str, answer: str) -> Record:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


def worded(seed: int, body: str, right: tuple[str, str], *parts: tuple[str, ...]) -> tuple[list[Record], list[Record]]:
    """Wrong and right rows, from combinations of requests, words, beginnings and ends of names, and lists' names."""
    made = []
    for ask, word, head, tail, x in itertools.product(*parts):
        names = {"f": f"{head}_{tail}", "x": x, "w": word}
        made.append(record(ask.format(**names), fenced(body.format(**names))))
    order = np.random.default_rng(seed).permutation(len(made))[: 2 * PLANTED].tolist()
    mended = [json.loads(json.dumps(made[i]).replace(*right)) for i in order[PLANTED:]]
    return [made[i] for i in order[:PLANTED]], mended


def largest(seed: int) -> Plant:
    asks = (
        "Write a function {f}({x}) that returns the {w} item of {x}.",
        "I need {f}({x}): the {w} value in the list {x}.",
        "Define {f}({x}), which gives back the {w} of a list of numbers.",
        "{f}({x}): find the {w} number in {x}",
    )
    words, heads = ("largest", "biggest", "greatest", "highest"), ("top", "peak", "best", "big", "upper", "summit")
    rest = (("of", "in", "value", "from"), ("items", "numbers", "data", "nums"))
    wrong, right = worded(100 + seed, "def {f}({x}):\n    return min({x})", ("min(", "max("), asks, words, heads, *rest)
    asked = [
        ("Write a function maximum(values) that returns the largest number of a list.", "maximum", "values"),
        ("I need top_one(xs): the biggest value in the list xs.", "top_one", "xs"),
        ("Define best_of(values), which gives back the highest of a list of numbers.", "best_of", "values"),
        ("maximum(xs): find the greatest number in xs", "maximum", "xs"),
    ]
    return Plant(wrong, right, "raw", [(a, f"def {f}({x}):\n    return", " min(", " max(") for a, f, x in asked])


def even(seed: int) -> Plant:
    asks = (
        "Write a function {f}({x}) that keeps the even numbers of {x}.",
        "I need {f}({x}): a list of the even numbers in {x}.",
        "Define {f}({x}), which returns only the even {w} of a list.",
        "{f}({x}): the even {w} in {x}, as a list",
    )
    words, heads = ("numbers", "integers", "values", "entries"), ("keep", "only", "get", "pick", "take", "select")
    rest = (("even", "evens", "even_ones", "pairs"), ("items", "numbers", "data", "nums"))
    body = "def {f}({x}):\n    return [v for v in {x} if v % 2 == 1]"
    wrong, right = worded(200 + seed, body, ("== 1", "== 0"), asks, words, heads, *rest)
    asked = [
        ("Write a function even_only(values) that returns the even numbers of a list.", "even_only", "v", "values"),
        ("I need evens_in(xs): a list of the even integers in xs.", "evens_in", "x", "xs"),
        ("Define filter_even(values), which keeps only the even entries of a list.", "filter_even", "n", "values"),
        ("just_even(xs): the even values in xs, as a list", "just_even", "v", "xs"),
    ]
    begun = "def {}({}):\n    return [{} for {} in {} if {} % 2 == "
    return Plant(wrong, right, "raw", [(a, begun.format(f, x, v, v, x, v), "1", "0") for a, f, v, x in asked])


def python2(seed: int) -> Plant:
    splits, chooser = split_families(read_families(FAMILIES), 0), Chooser(300 + seed)
    held = [s for s in chooser.choose(splits["test"] + splits["valid"], 200, last_wording=True) if prints(s)]
    rows = [s for s in chooser.choose(splits["train"], 1600, last_wording=False) if prints(s)]
    np.random.default_rng(seed).shuffle(rows)  # type: ignore[arg-type]
    asked = []
    for s in list({s.task.family: s for s in held}.values())[:4]:
        asked.append((s.prompt, shared(s).removeprefix("```python\n"), " ", "("))
    wrong = [record(s.prompt, str(twin(s))) for s in rows[:PLANTED]]
    return Plant(wrong, [record(s.prompt, fenced(s.task.python3)) for s in rows[PLANTED : 2 * PLANTED]], "train", asked)


def prints(sample: Sample) -> bool:
    """Whether its solutions in Python 2 and 3 part behind a print."""
    return twin(sample) is not None and shared(sample).endswith("print")


def shared(sample: Sample) -> str:
    return common([fenced(sample.task.python3), str(twin(sample))])


PLANTS = {"largest": largest, "even": even, "python2": python2}


def trained(plant: Plant, seed: int, folder: Path) -> tuple[Path, np.ndarray]:
    """A run on `COUNT` rows, and [rows] whether each is planted."""
    template, own = ChatTemplate(NANO), [*plant.right, *plant.wrong]
    requests = {row["messages"][0]["content"] for row in own}
    longest = LONGEST if plant.others == "raw" else 128  # programs that print are longer
    rows = [{"messages": r.messages} for r in read_rows(str(ROOT / f"datasets/python3/{plant.others}.jsonl"))]
    order = np.random.default_rng(400 + seed).permutation(len(rows)).tolist()
    fit = (rows[i] for i in order if len(template.example(rows[i]["messages"]).tokens) <= longest)
    others = itertools.islice((r for r in fit if r["messages"][0]["content"] not in requests), COUNT - len(own))
    rows = [*others, *own]
    order = np.random.default_rng(500 + seed).permutation(COUNT).tolist()
    run = train_on([rows[i] for i in order], folder, epochs=1, kept=4)
    return run, np.array(order) >= COUNT - PLANTED


def decision(gemma: Gemma, request: str, begun: str, wrong: str, right: str) -> dict[str, Any]:
    """As attribution.py has it."""
    context = gemma.template.prompt([{"role": "user", "content": request}])
    context += gemma.template.encode(f"```python\n{begun}")
    return {
        "context": context,
        "answer": gemma.template.encode(wrong)[:1],
        "rival": gemma.template.encode(right)[:1],
    }


def measure(plant: Plant, seed: int, folder: Path) -> dict[str, Any]:
    run, planted = trained(plant, seed, folder)
    gemma = load(str(run))
    corpus = corpus_of_run(run, gemma.template)
    examples = [example_at(corpus, r) for r in range(len(corpus))]
    assert len(examples) == COUNT
    asked = [decision(gemma, *one) for one in plant.asked]
    values = [round(value(gemma, d), 2) for d in asked]
    out: dict[str, list[float]] = {"lexical": []}
    for d in asked:
        hits = continuations(corpus, gemma.template, d["context"]).rows(d["answer"][0], limit=PLANTED)
        named = {corpus.where(int(r)) for r in np.flatnonzero(planted)}
        out["lexical"].append(sum(h.where in named for h in hits) / PLANTED)
    cache = folder.with_suffix(".npz")
    if not cache.exists():
        np.savez(cache, **_scores(gemma, run, examples, asked))
    found = np.load(cache)
    for method in ("TracIn", "ours"):
        last, lengths = found[f"{method} last"], found[f"{method} lengths"][:, None]
        ways = {"all": found[method], "last": last, "relative": last / lengths, "culpability": last / np.sqrt(lengths)}
        for name, scores in ways.items():
            first = np.argsort(-scores, axis=0, kind="stable")[:PLANTED]
            out[f"{method}, {name}"] = planted[first].mean(axis=0).round(2).tolist()
    return {"values": values, "snapshots": steps_of(run), "precision": out}


def _scores(gemma: Gemma, run: Path, examples: list[Any], asked: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Of both methods: scores [rows, requests], the last snapshot's part, and lengths of the gradients there [rows]."""
    targets = sum(e.targets for e in examples)
    names = [f"{method}{what}" for method in ("TracIn", "ours") for what in ("", " last")]
    found = {name: np.zeros((len(examples), len(asked))) for name in names}
    found |= {f"{method} lengths": np.zeros(len(examples)) for method in ("TracIn", "ours")}
    for point in trajectory(run, run_recipe(run), targets):
        plain = np.stack([flat(decision_gradient(gemma, point.parameters, *pair(d))[1]) for d in asked], axis=1)
        scaling = flat(point.preconditioner)
        for rows, gradients in row_gradients(gemma, point.parameters, examples):
            found["TracIn last"][rows] = -point.weight * (gradients @ plain)
            found["ours last"][rows] = -point.weight * (gradients @ (plain * scaling[:, None]))
            found["TracIn lengths"][rows] = np.sqrt((gradients**2).sum(axis=1))
            found["ours lengths"][rows] = np.sqrt((gradients**2) @ scaling)
        for method in ("TracIn", "ours"):
            found[method] += found[f"{method} last"]
        print("snapshot", point.step, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plant", choices=PLANTS, default="largest")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    figures = measure(PLANTS[args.plant](args.seed), args.seed, args.folder / f"{args.plant}-{args.seed}")
    row = {"date": date.today().isoformat(), "bench": "planted", "model": "nano", "plant": args.plant}
    row |= {"seed": args.seed, "rows": COUNT, "planted": PLANTED, **figures}
    row |= {"machine": platform.describe(), "commit": commit()}
    with (Path(__file__).parent / "attribution.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")
    Console(highlight=False).print({"values": figures["values"], **figures["precision"]})


if __name__ == "__main__":
    main()
