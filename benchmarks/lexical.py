"""Lexical blame: seconds and memory of a query, at 5,000 rows and at a million.

    python benchmarks/lexical.py FOLDER    # 1.5 GB are written there, and removed

A row of benchmarks/lexical.jsonl. The corpora: three rows of datasets/python3/train.jsonl behind one another (over 200
tokens of nano's tokenizer), 5 % of the tokens replaced by random ones of that data, so that copies differ. The
contexts: "usual", answers of datasets/python3/test.jsonl, cut at random, behind their prompts; "worst", the token that
has most places, alone, so that all of them are counted; "copy", a whole row of the corpus. A query is everything a
person sees: the ladder, its best and longest rung, the sentence, ten rows. "cold" is the first one after the corpus was
put out of Linux's page cache; the disk's own cache, and a virtual machine's host, may still hold it. CPU seconds stand
beside the clock's, and the load average, where other work runs on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from training import commit

from mlx_gemma import platform
from mlx_gemma.blame import corpus, lexical
from mlx_gemma.blame.index import LEARNED, NO_TOKEN, in_order
from mlx_gemma.blame.trained import corpus_of_data
from mlx_gemma.data.formats import read_rows
from mlx_gemma.gemma4.checkpoint import NANO
from mlx_gemma.gemma4.template import ChatTemplate, Example

DATA = Path(__file__).parents[1] / "datasets" / "python3"
SIZES = (5_000, 1_000_000)
TURNS = 3  # rows of the data in one of the corpus
CHANGED = 0.05
QUERIES = 40


def rows(count: int, template: ChatTemplate) -> Iterator[tuple[Example, str]]:
    rng = np.random.default_rng(0)
    rendered = [template.example(row.messages) for row in read_rows(DATA / "train.jsonl")]
    tokens = [np.array(e.tokens) for e in rendered]
    supervised = [np.array(e.supervised) for e in rendered]
    pool = np.concatenate(tokens)
    for i in range(count):
        chosen = rng.integers(len(rendered), size=TURNS)
        ids = np.concatenate([tokens[c] for c in chosen])
        other = rng.random(len(ids)) < CHANGED
        ids[other] = rng.choice(pool, other.sum())
        learned = np.concatenate([supervised[c] for c in chosen])
        yield Example(ids.tolist(), learned.tolist()), f"rows.jsonl:{i + 1}"


def contexts(found: corpus.Corpus, template: ChatTemplate) -> dict[str, list[tuple[list[int], int]]]:
    """(context, token behind it) of each kind."""
    rng = np.random.default_rng(1)
    examples = [template.example(row.messages) for row in read_rows(DATA / "test.jsonl")]
    usual = []
    for i in rng.integers(len(examples), size=QUERIES):
        at = int(rng.choice(np.flatnonzero(examples[i].supervised)))
        usual.append((examples[i].tokens[:at], examples[i].tokens[at]))
    counts = np.bincount(found.tokens[found.index[:: max(1, len(found.index) // 1_000_000)]] - np.uint32(LEARNED))
    worst = [([int(counts.argmax())], int(t)) for t in np.argsort(-counts)[:5]]
    copy = []
    for row in rng.integers(len(found), size=QUERIES):
        whole = (found.row(row)[1:] & np.uint32(NO_TOKEN)).tolist()
        copy.append((whole[:-1], whole[-1]))
    return {"usual": usual, "worst": worst, "copy": copy}


def ask(found: corpus.Corpus, template: ChatTemplate, context: list[int], token: int) -> lexical.Ladder:
    ladder = lexical.continuations(found, template, context)
    lexical.sentence(ladder, token, 0.5)
    if ladder.longest:
        ladder.longest.top(10)
    ladder.rows(token)
    return ladder


def seconds(do: Callable[[], Any]) -> tuple[float, float]:
    """By the clock, and of the processor."""
    started, cpu = time.perf_counter(), time.process_time()
    do()
    return time.perf_counter() - started, time.process_time() - cpu


def timed(found: corpus.Corpus, template: ChatTemplate, context: list[int], token: int) -> tuple[float, float]:
    return seconds(lambda: ask(found, template, context, token))


def forget(folder: Path) -> None:
    """Put a corpus out of Linux's page cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path) -> dict[str, Any]:
    template = ChatTemplate(NANO)
    found = corpus.read(folder)
    asked = contexts(found, template)
    figures: dict[str, Any] = {"rows": len(found), "tokens": len(found.tokens) - len(found)}
    figures["load_average"] = round(os.getloadavg()[0], 1)
    figures["disk_bytes"] = sum(path.stat().st_size for path in folder.iterdir())
    if hasattr(os, "posix_fadvise"):
        figures["cold_seconds"] = []
        del found  # what is mapped stays in the cache
        for context, token in asked["usual"][:5]:
            forget(folder)
            figures["cold_seconds"].append(round(timed(corpus.read(folder), template, context, token)[0], 4))
        found = corpus.read(folder)
    for kind, pairs in asked.items():
        places = [sum(ask(found, template, *pair).places[:1]) for pair in pairs]
        took, cpu = np.array([timed(found, template, *pair) for pair in pairs]).T
        tracemalloc.start()
        ask(found, template, *pairs[int(np.argmax(places))])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        figures[kind] = {
            "queries": len(pairs),
            "median_seconds": round(float(np.median(took)), 4),
            "most_seconds": round(float(took.max()), 4),
            "most_cpu_seconds": round(float(cpu.max()), 4),
            "most_places": max(places),
            "peak_array_bytes": peak,
        }
    unit = 1 if sys.platform == "darwin" else 1024
    # What of the corpus was touched is in it; the system takes that back where it needs memory.
    figures["resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    tracemalloc.start()
    took, cpu = seconds(lambda: [None for _ in in_order(found.tokens)])
    figures["index"] = {"seconds": round(took, 1), "cpu_seconds": round(cpu, 1)}
    figures["index"] |= {"places": len(found.index), "peak_array_bytes": tracemalloc.get_traced_memory()[1]}
    tracemalloc.stop()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.folder)))
        return
    template, figures = ChatTemplate(NANO), {}
    args.folder.mkdir(parents=True, exist_ok=True)
    folder = args.folder / "corpus"
    try:
        data = str(DATA / "train.jsonl")
        first, again = (seconds(lambda: corpus_of_data(data, "nano", folder))[0] for _ in range(2))
        figures["train.jsonl"] = {"rows": 5_000, "make_seconds": round(first, 2), "open_seconds": round(again, 3)}
        for count in SIZES:
            shutil.rmtree(folder)
            folder.mkdir()
            write, _ = seconds(lambda n=count: corpus.write(folder, rows(n, template)))
            command = [sys.executable, __file__, str(folder), "--one"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures[str(count)] = {"write_seconds": round(write, 1)} | json.loads(done.stdout)
            print(count, json.dumps(figures[str(count)], indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    row = {"date": date.today().isoformat(), "bench": "lexical", "figures": figures}
    row |= {"machine": platform.describe(), "commit": commit()}
    with (Path(__file__).parent / "lexical.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
