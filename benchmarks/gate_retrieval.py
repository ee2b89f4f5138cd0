"""Examples in the prompt: bad outputs of nano and of its adapter without examples, with near ones, with others.

    python benchmarks/gate_retrieval.py runs/demo GATE

A row of benchmarks/gate_retrieval.jsonl. GATE is the run's, built with the default encoder. "near": the K nearest rows,
the nearest last; "mismatched": as many rows drawn at random from the whole knowledge base. Greedy answers; intervals
are Wilson's. Against "none", paired on the same items: exact McNemar test, clusters as the suite has them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from training import commit

from mlx_gemma import platform
from mlx_gemma.evaluate.paired import compare
from mlx_gemma.evaluate.results import Row
from mlx_gemma.evaluate.run import evaluate
from mlx_gemma.evaluate.sandbox import prove
from mlx_gemma.evaluate.stats import Rate
from mlx_gemma.evaluate.suite import Item, Suite, read_suite
from mlx_gemma.gate.decision import Near
from mlx_gemma.gate.gated import open_gated
from mlx_gemma.gate.retrieve import examples

ROOT = Path(__file__).parents[1]
SUITES = ("tasks", "misleading")
K, BUDGET = 3, 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("gate", type=Path)
    args = parser.parse_args()
    prove().require()
    gated = open_gated(args.gate, str(args.run))
    gate, gemma, rng = gated.gate, gated.gemma, np.random.default_rng(0)

    def near(item: Item) -> list[dict[str, str]]:
        return examples(gate.route(item.prompt, k=20), K, BUDGET, gemma.template)

    def mismatched(item: Item) -> list[dict[str, str]]:
        drawn = rng.choice(len(gate.index), size=20, replace=False)
        rows = tuple(Near(0.0, *gate.index.row(int(row))) for row in drawn)
        return examples(replace(gate.route(item.prompt), nearest=rows), K, BUDGET, gemma.template)

    ways: dict[str, Callable[[Item], list[dict[str, str]]]] = {
        "none": lambda item: [],
        "near": near,
        "mismatched": mismatched,
    }
    figures: dict[str, Any] = {"k": K, "budget": BUDGET, "rows": len(gate.index)}
    for name in SUITES:
        suite = read_suite(ROOT / "evals" / f"{name}.jsonl")
        asked = {way: with_examples(suite, made) for way, made in ways.items()}
        figures[name] = {}
        for model, adapter in (("base", None), ("specialist", gated.adapter)):
            gated.variants.use(adapter)
            rows = {way: evaluate(gemma, one, sampled=False) for way, one in asked.items()}
            figures[name][model] = {way: summary(found, rows["none"]) for way, found in rows.items()}
            print(name, model, json.dumps(figures[name][model]), flush=True)
    row = {"date": str(date.today()), "bench": "gate_retrieval", "figures": figures}
    row |= {"machine": platform.describe(), "commit": commit()}
    with Path(__file__).with_name("gate_retrieval.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


def with_examples(suite: Suite, made: Callable[[Item], list[dict[str, str]]]) -> Suite:
    return replace(suite, items=tuple(replace(item, messages=(*made(item), *item.messages)) for item in suite.items))


def summary(rows: list[Row], without: list[Row]) -> dict[str, Any]:
    rate = Rate(sum(row.bad for row in rows), len(rows))
    found = {"bad": rate.count, "of": rate.total, "rate": str(rate)}
    found["prompt_tokens"] = float(np.mean([row.prompt_tokens for row in rows]))
    if rows is not without:
        clusters = [row.cluster for row in rows]
        against = compare([row.bad for row in without], [row.bad for row in rows], clusters=clusters)
        found["against_none"] = {"finding": against.verdict, "p": round(against.p, 4)}
    return found


if __name__ == "__main__":
    main()
