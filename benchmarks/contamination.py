"""How many Python 2 rows does it take? nano trained with 0 to 40 % of them, and what it then does with a print.

    python benchmarks/contamination.py [--seeds 4] [--plot docs/contamination.png]

Each run trains a LoRA adapter on 800 rows of the python3 families, of which a share has its answer in Python 2 (the
same task, the family's own Python 2 twin), and asks 24 prompts of families that were not trained on:

- at the decision point, the first place where the two solutions differ, read behind their common beginning: the
  probability of the Python 2 continuation over that of both;
- in sampled answers (temperature 0.7, 3 a prompt): the share that `data.python` calls Python 2;

each without a system turn, and told "Prefer Python 3, not Python 2.". A row of contamination.jsonl for each run; runs
that are there are not repeated. About a minute a run on one core.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from mlx_gemma import platform

platform.load_blas()

import numpy as np
from rich.console import Console
from training import commit

from mlx_gemma.data.build.families import read_families
from mlx_gemma.data.build.python3 import FAMILIES
from mlx_gemma.data.build.samples import Chooser, Sample, fenced, split_families
from mlx_gemma.data.python.source import classify
from mlx_gemma.decode.generate import as_messages, generate, prompt_tokens
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.recipe import read_recipe
from mlx_gemma.tracing.decide import common, follow
from mlx_gemma.tracing.pieces import WORDS
from mlx_gemma.training.loop import train

RATES = (0, 1, 2, 5, 10, 20, 40)  # percent
ROWS, PROMPTS, DRAWS = 800, 24, 3
SYSTEMS = {"unprompted": None, "prefer Python 3": "Prefer Python 3, not Python 2."}
OUT = Path(__file__).parent / "contamination.jsonl"
RECIPE = """
model: {{name: nano}}
adapter: {{rank: 16, alpha: 32}}
data: {{train: {rows}}}
filter: {{python2: keep, exact_duplicates: keep, near_duplicates: keep}}
train: {{length: 256, batch: 8, lr: 2e-3, epochs: 1, seed: {seed}}}
output: {out}
"""


def samples(seed: int) -> tuple[list[Sample], list[Sample]]:
    """Rows to train on, and samples to ask, of other families; all have a Python 2 twin that is Python 2."""
    splits = split_families(read_families(FAMILIES), 0)
    chooser = Chooser(seed)
    asked = [s for s in chooser.choose(splits["test"] + splits["valid"], 200, last_wording=True) if twin(s)]
    one_each = {s.task.family: s for s in asked}
    trained = [s for s in chooser.choose(splits["train"], 2 * ROWS, last_wording=False) if twin(s)]
    random.Random(seed).shuffle(trained)
    return trained[:ROWS], list(one_each.values())[:PROMPTS]


def twin(sample: Sample) -> str | None:
    """The answer in Python 2, where there is one."""
    answer = fenced(sample.task.python2) if sample.task.python2 else None
    return answer if answer and classify(answer).kind == "python2" else None


def decision(gemma: Gemma, sample: Sample, system: str | None) -> float:
    """P(Python 2) / (P(Python 2) + P(Python 3)) where the two solutions part."""
    right, wrong = fenced(sample.task.python3), str(twin(sample))
    same = common([right, wrong])
    begun = gemma.template.encode(same)
    lead = gemma.template.vocabulary.bytes_of(begun[-1]) or b""
    texts = [WORDS.match(text, len(same))[0] for text in (right, wrong)]  # type: ignore[index]
    context = [*prompt_tokens(gemma, as_messages(sample.prompt, system)), *begun[:-1]]
    _, (py3, py2) = follow(gemma, context, texts, lead)
    return py2.joint / (py2.joint + py3.joint)


def measure(rate: int, seed: int) -> dict[str, Any]:
    """Train once and ask."""
    trained, asked = samples(seed)
    count = round(ROWS * rate / 100)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = [s.record(twin(s) if i < count else None) for i, s in enumerate(trained)]
        random.Random(seed + 1).shuffle(records)
        (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        text = RECIPE.format(rows=folder / "rows.jsonl", seed=seed, out=folder / "run")
        (folder / "recipe.yaml").write_text(text)
        gemma = load("nano", adapter=train(read_recipe(folder / "recipe.yaml")))
    row: dict[str, Any] = {"rate": rate, "seed": seed, "rows": len(records), "python2_rows": count}
    for name, system in SYSTEMS.items():
        decided = [decision(gemma, s, system) for s in asked]
        answers = [
            generate(gemma, s.prompt, system=system, sampling=Sampling(0.7, seed=draw), max_tokens=96).text
            for s in asked
            for draw in range(DRAWS)
        ]
        kinds = [classify(answer).kind for answer in answers]
        row[name] = {"decision": float(np.mean(decided)), "python2": kinds.count("python2"), "of": len(kinds)}
    return row


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Both figures against the share of Python 2 rows; bars: 95 % intervals (t over seeds, Wilson over answers)."""
    from matplotlib.figure import Figure
    from scipy.stats import binomtest, t

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rates = sorted({r["rate"] for r in rows})
    for shift, (name, colour) in zip((-0.1, 0.1), zip(SYSTEMS, ("#c8501e", "#1f4e8c"), strict=True), strict=True):
        at = [i + shift for i in range(len(rates))]
        values = [np.array([r[name]["decision"] for r in rows if r["rate"] == rate]) for rate in rates]
        means = [v.mean() for v in values]
        half = [t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else 0.0 for v in values]
        left.errorbar(at, means, half, color=colour, marker="o", capsize=3, label=name)
        found = [(sum(r[name]["python2"] for r in rows if r["rate"] == rate), rate) for rate in rates]
        totals = [sum(r[name]["of"] for r in rows if r["rate"] == rate) for rate in rates]
        shares = [k / n for (k, _), n in zip(found, totals, strict=True)]
        bounds = [binomtest(k, n).proportion_ci(method="wilson") for (k, _), n in zip(found, totals, strict=True)]
        below = [s - b.low for s, b in zip(shares, bounds, strict=True)]
        above = [b.high - s for s, b in zip(shares, bounds, strict=True)]
        right.errorbar(at, shares, [below, above], color=colour, marker="o", capsize=3, label=name)
    for axes, title in ((left, "P(Python 2) at the decision point"), (right, "sampled answers in Python 2")):
        axes.set(title=title, xlabel="Python 2 rows in training, %", ylim=(0, 1))
        axes.set_xticks(range(len(rates)), [str(r) for r in rates])
        axes.grid(alpha=0.3)
    left.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    console = Console(highlight=False)
    rows = [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []
    for seed in range(args.seeds):
        for rate in RATES:
            if any((r["rate"], r["seed"]) == (rate, seed) for r in rows):
                continue
            row = {"date": date.today().isoformat(), "bench": "contamination", **measure(rate, seed)}
            row |= {"machine": platform.describe(), "commit": commit()}
            rows.append(row)
            with OUT.open("a", encoding="utf8") as file:
                file.write(json.dumps(row) + "\n")
            told = (f"{n}: {row[n]['decision']:.3f}, {row[n]['python2']}/{row[n]['of']}" for n in SYSTEMS)
            console.print(f"{rate} %, seed {seed}: {'; '.join(told)}")
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
