"""The gate's times: importing and asking an encoder, routing beyond it, and search to 1,000,000 rows.

    python benchmarks/gate_times.py FOLDER    # 1.6 GB are written there, and removed

A row of benchmarks/gate_times.jsonl. "routing": a gate on the 5,000 prompts of datasets/python3/train.jsonl, asked the
prompts of evals/tasks.jsonl one by one; `encode` is the encoder's own time, `beyond` all else that `Gate.route` does.
"starting": a process of its own, and "command", `mlx-gemma gate route` from the shell, the first time after the files
were put out of Linux's page cache (the disk's own cache may still hold them), then again. "search": made vectors
of 384 dimensions, around 1,000 centres, cosine about 0.7 to their own; `graph` is usearch over the same, its share of
the exact 20 nearest. Medians. Beside the clock's time stand the processor's and the load average, where other work runs
on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from training import commit

from mlx_gemma import platform
from mlx_gemma.data.formats import read_rows
from mlx_gemma.data.records import read_eval_items
from mlx_gemma.gate import approximate, index
from mlx_gemma.gate.build import known, write_gate
from mlx_gemma.gate.encoders import KINDS, Floats, Kind, new_encoder
from mlx_gemma.gate.index import KnownRow, Made, open_index, write_index
from mlx_gemma.gate.route import Gate
from mlx_gemma.gate.scores import NEIGHBOURS

ROOT = Path(__file__).parents[1]
SIZES = (5_000, 100_000, 1_000_000)
GRAPH = 100_000  # rows of the graph that is measured
DIMENSION = 384
TURNS = 2
IMPORT = """
import time
started = time.perf_counter()
from mlx_gemma.gate.route import Gate
gate = Gate.load({folder!r})
opened = time.perf_counter()
gate.encoder
loaded = time.perf_counter()
gate.route("Write a function that reverses a string.")
print(opened - started, loaded - opened, time.perf_counter() - loaded, time.process_time())
"""


def make_gate(folder: Path, kind: Kind) -> dict[str, float]:
    folder.mkdir()
    started = time.perf_counter()
    encoder = new_encoder(kind, None, folder)
    ready = time.perf_counter()
    rows = [known(row) for row in read_rows(ROOT / "datasets/python3/train.jsonl")]
    digests = dict.fromkeys(("data", "adapter", "base", "template"), "") | {"encoder": encoder.spec.digest}
    write_gate(folder, rows, encoder, Made("python3", "nowhere", encoder.spec, digests))
    return {
        "rows": len(rows),
        "encoder_seconds": round(ready - started, 2),  # model2vec: with distilling
        "encode_and_write_seconds": round(time.perf_counter() - ready, 2),
        "bytes": (folder / index.FILE).stat().st_size,
    }


def routing(folder: Path) -> dict[str, Any]:
    gate = Gate.load(folder)
    queries = [item.prompt for item in read_eval_items(ROOT / "evals/tasks.jsonl")]
    gate.route(queries[0])
    parts: dict[str, list[float]] = {"encode_ms": [], "encode_cpu_ms": [], "beyond_ms": [], "beyond_cpu_ms": []}
    for query in queries:
        times = [(time.perf_counter(), time.process_time())]
        embedded = gate.embed([query])
        times.append((time.perf_counter(), time.process_time()))
        gate.decide(embedded)
        times.append((time.perf_counter(), time.process_time()))
        spent = np.diff(np.array(times), axis=0).ravel() * 1e3
        for name, value in zip(parts, spent, strict=True):
            parts[name].append(float(value))
    medians = {name: round(statistics.median(values), 2) for name, values in parts.items()}
    return {"queries": len(queries)} | medians | {"most_beyond_ms": round(max(parts["beyond_ms"]), 2)}


def starting(folder: Path) -> dict[str, Any]:
    """In processes of their own, TURNS times."""
    code = IMPORT.format(folder=str(folder))
    parts = []
    for _ in range(TURNS):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        parts.append([float(part) for part in done.stdout.split()])
    medians = [round(statistics.median(column), 2) for column in zip(*parts, strict=True)]
    command = [
        sys.executable,
        "-c",
        "from mlx_gemma.cli import main; main()",
        "gate",
        "route",
        str(folder),
        "Sort a list.",
    ]
    seconds = []
    for cold in (True, False):
        if cold:
            drop_cache(folder)
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        seconds.append(round(time.perf_counter() - started, 2))
    names = ("import_and_open_seconds", "load_encoder_seconds", "first_query_seconds", "cpu_seconds")
    return dict(zip(names, medians, strict=True)) | {"command_seconds": seconds}


def drop_cache(folder: Path) -> None:
    for path in (*folder.rglob("*"), *Path(sys.prefix).rglob("*.so"), *Path(sys.prefix).rglob("*.safetensors")):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def vectors(rows: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((1000, DIMENSION), np.float32)
    made = centres[rng.integers(1000, size=rows)]
    for first in range(0, rows, 50_000):
        part = made[first : first + 50_000]
        part += rng.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


def searching(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    made = Made(
        "made", "nowhere", index.EncoderSpec("model2vec", "none", "", DIMENSION), dict.fromkeys(index.DIGESTS, "")
    )
    queries = vectors(20, seed=2)
    for size in SIZES:
        folder.mkdir()
        started = time.perf_counter()
        write_index(folder, (KnownRow("", "", "") for _ in range(size)), vectors(size, seed=1), made)
        wrote = time.perf_counter()
        opened = open_index(folder)
        first = time.perf_counter()
        exact = opened.search(queries[:1], NEIGHBOURS)[1]
        warm = time.perf_counter()
        clock, cpu = [], []
        for query in queries:
            one, used = time.perf_counter(), time.process_time()
            opened.search(query[None], NEIGHBOURS)
            clock.append((time.perf_counter() - one) * 1e3)
            cpu.append((time.process_time() - used) * 1e3)
        found[str(size)] = {
            "make_and_write_seconds": round(wrote - started, 1),
            "open_ms": round((first - wrote) * 1e3, 1),
            "first_ms": round((warm - first) * 1e3, 1),
            "exact_ms": round(statistics.median(clock), 2),
            "exact_cpu_ms": round(statistics.median(cpu), 2),
        }
        if size == GRAPH:
            exact = opened.search(queries, NEIGHBOURS)[1]
            index.EXACT_ROWS = GRAPH - 1
            started = time.perf_counter()
            approximate.write_graph(folder, opened.embeddings)
            build = time.perf_counter() - started
            opened.search(queries[:1], NEIGHBOURS)
            each, shares = [], []
            for query, right in zip(queries, exact, strict=True):
                one = time.perf_counter()
                rows = opened.search(query[None], NEIGHBOURS)[1][0]
                each.append((time.perf_counter() - one) * 1e3)
                shares.append(len(set(rows) & set(right)) / NEIGHBOURS)
            found["graph"] = {
                "rows": size,
                "build_seconds": round(build, 1),
                "bytes": (folder / approximate.GRAPH).stat().st_size,
                "ms": round(statistics.median(each), 2),
                "recall": round(statistics.mean(shares), 3),
            }
            index.EXACT_ROWS = 1_000_000
        del opened, exact
        shutil.rmtree(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", nargs="+", choices=[*KINDS, "search"], default=[*KINDS, "search"])
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    figures: dict[str, Any] = {"load_average": round(os.getloadavg()[0], 1)}
    for kind in KINDS:
        if kind in args.parts:
            gate = args.folder / kind
            figures[kind] = {"make": make_gate(gate, kind), "routing": routing(gate), "starting": starting(gate)}
    if "search" in args.parts:
        figures["search"] = searching(args.folder / "search")
    shutil.rmtree(args.folder)
    row = {"date": str(date.today()), "bench": "gate_times", "figures": figures}
    row |= {"machine": platform.describe(), "commit": commit()}
    print(json.dumps(row))
    with Path(__file__).with_name("gate_times.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
