"""Answers in batches against one by one: the same prompts, greedy, taking turns.

    python benchmarks/eval_batch.py [--layers 3]     # nano; or E2B's shape with so many layers, random

Seconds an answer at batch 1 (our `generate`) and at 4, 16 and 32, medians over turns, and whether the tokens are the
same. A row of benchmarks/evaluation.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

from mlx_gemma import platform

platform.load_blas()

from trace import model

import numpy as np
from rich.console import Console
from training import commit

from mlx_gemma.decode.batch import generate_batch
from mlx_gemma.decode.generate import as_messages, decode, prompt_tokens
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.evaluate.suite import read_suite
from mlx_gemma.gemma4.load import Gemma, load

ROOT = Path(__file__).parents[1]
SIZES, PROMPTS, TURNS = (4, 16, 32), 32, 3


def one_by_one(gemma: Gemma, prompts: list[list[int]], most: int) -> list[list[int]]:
    out = []
    for prompt in prompts:
        tokens: list[int] = []
        for step in decode(gemma, prompt, Sampling(), most, top=3):
            if step.token in gemma.stop_tokens:
                break
            tokens.append(step.token)
        out.append(tokens)
    return out


def batched(gemma: Gemma, prompts: list[list[int]], most: int, size: int) -> list[list[int]]:
    out = []
    for at in range(0, len(prompts), size):
        part = prompts[at : at + size]
        found = {row: g.tokens for row, g, _ in generate_batch(gemma, part, [Sampling()] * len(part), most, top=3)}
        out += [found[row] for row in range(len(part))]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int)
    args = parser.parse_args()
    items = read_suite(ROOT / "evals" / "tasks.jsonl").items[:PROMPTS]
    if args.layers:
        gemma, most, turns = model(args.layers), 8, 1
        lengths = sorted(len(i.prompt.split()) for i in items)
        prompts = [np.random.default_rng(n).integers(100, 200_000, n + 20).tolist() for n in lengths]
    else:
        gemma, most, turns = load("nano"), 192, TURNS
        prompts = sorted((prompt_tokens(gemma, as_messages(i.prompt)) for i in items), key=len)
    seconds: dict[str, list[float]] = {}
    answers: dict[str, list[list[int]]] = {}
    for turn in range(turns + 1):
        for size in (1, *SIZES):
            started = time.perf_counter()
            name = f"batch {size}"
            answers[name] = one_by_one(gemma, prompts, most) if size == 1 else batched(gemma, prompts, most, size)
            if turn:
                seconds.setdefault(name, []).append((time.perf_counter() - started) / PROMPTS)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    alone = answers["batch 1"]
    row: dict[str, Any] = {"date": date.today().isoformat(), "bench": "batch", "model": args.layers or "nano"}
    row |= {"prompts": PROMPTS, "max_tokens": most, "seconds_an_answer": medians}
    row["times_faster"] = {name: medians["batch 1"] / value for name, value in medians.items()}
    row["same_answers"] = {n: sum(a == b for a, b in zip(alone, of, strict=True)) for n, of in answers.items()}
    row |= {"tokens": sum(map(len, alone)), "machine": platform.describe(), "commit": commit()}
    with (Path(__file__).parent / "evaluation.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")
    console = Console(highlight=False)
    console.print({key: row[key] for key in ("seconds_an_answer", "times_faster", "same_answers")})


if __name__ == "__main__":
    main()
