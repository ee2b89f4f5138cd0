"""The audit at scale: seconds, and memory of the parent and of its worker processes, at 20,000 to 1,000,000 rows.

    python benchmarks/data_scale.py FOLDER [--rows 20000 100000 1000000] [--workers 2]    # 700 MB a million rows there

A row of benchmarks/data.jsonl for each size. The rows: those of datasets/python3/raw.jsonl, faults, duplicates and
leaks included, over and over, their words and names varied from round to round (a third of a row's words of five
letters and more, spelt anew), so that a round is no copy of another. The audit is the command's own, with every check,
against evals/tasks.jsonl; then again, from the cache. CPU seconds stand beside the clock's, and the load average,
where other work runs on the machine. Memory is sampled twenty times a second: resident in all (the spool file's pages
that happen to be in memory are counted, and can be taken back), and anonymous, which is what the process holds itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from training import commit

from mlx_gemma import platform

ROOT = Path(__file__).parents[1]
RAW, EVALS, OUT = ROOT / "datasets/python3/raw.jsonl", ROOT / "evals/tasks.jsonl", ROOT / "benchmarks/data.jsonl"
SIZES = (20_000, 100_000, 1_000_000)
WORD = re.compile(r"\b[a-z_]{5,}\b")
KEPT = {"print", "return", "range", "import", "while", "break", "except", "class", "lambda", "yield", "raise", "python"}
KEPT |= {"xrange", "input", "raw_input", "False", "global", "assert", "finally", "continue", "isinstance", "split"}
KEPT |= {"append", "items", "iteritems", "sorted", "format", "enumerate", "lower", "upper", "strip", "float", "reduce"}


def rows(count: int) -> Iterator[str]:
    """JSON lines."""
    records = [json.loads(line) for line in RAW.read_text(encoding="utf8").splitlines()]
    for number in range(count):
        record = records[number % len(records)]
        if number >= len(records):
            record = varied(record, random.Random(number))
        yield json.dumps(record) + "\n"


def varied(record: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The row in other words, the same word for the same everywhere in it."""
    new: dict[str, str] = {}

    def other(match: re.Match[str]) -> str:
        word = match[0]
        if word in KEPT:
            return word
        if word not in new:
            drawn = "".join(draw.choices(string.ascii_lowercase, k=len(word)))
            new[word] = drawn if draw.random() < 1 / 3 else word
        return new[word]

    messages = [{**m, "content": WORD.sub(other, m["content"])} for m in record["messages"]]
    return record | {"messages": messages}


class Memory:
    """The most that a process and its children take, while it is watched; /proc of Linux."""

    def __init__(self, process: int) -> None:
        self.process, self.done = process, threading.Event()
        self.most = {"parent_resident": 0, "parent_anonymous": 0, "worker_resident": 0, "worker_anonymous": 0}
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def stop(self) -> dict[str, int]:
        self.done.set()
        self.thread.join()
        return {f"{name}_mb": value // 1024 for name, value in self.most.items()}

    def _watch(self) -> None:
        while not self.done.wait(0.05):
            try:
                children = Path(f"/proc/{self.process}/task/{self.process}/children").read_text().split()
            except OSError:
                return
            for name, process in (("parent", str(self.process)), *(("worker", child) for child in children)):
                for key, value in zip(("resident", "anonymous"), _memory(process), strict=True):
                    self.most[f"{name}_{key}"] = max(self.most[f"{name}_{key}"], value)


def _memory(process: str) -> tuple[int, int]:
    """(VmRSS, RssAnon) in kB; zeros where the process has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0, 0
    found = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB", status, re.MULTILINE))
    return int(found.get("VmRSS", 0)), int(found.get("RssAnon", 0))


def audited(data: Path, folder: Path, workers: int) -> dict[str, Any]:
    """One run of the command."""
    code = "from mlx_gemma.cli import main; main()"
    report = folder / "audit.json"
    command = [sys.executable, "-c", code, "audit", str(data), "--against", str(EVALS), "--json", str(report)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder), "TMPDIR": str(folder)}
    started, before = time.perf_counter(), os.times()
    process = subprocess.Popen(
        [*command, "--workers", str(workers)], env=environment, stdout=subprocess.PIPE, text=True
    )
    memory = Memory(process.pid)
    printed, _ = process.communicate()
    took, after = time.perf_counter() - started, os.times()
    if process.returncode:
        raise SystemExit(f"the audit ended with status {process.returncode}")
    told = json.loads(report.read_text(encoding="utf8"))
    return {
        "seconds": round(took, 1),
        "cpu_seconds": round(sum(after[2:4]) - sum(before[2:4]), 1),
        **memory.stop(),
        "from_cache": "from the cache" in printed,
        "kept": told["kept"],
        "found": {c["check"]: c["rows"] for c in told["checks"]},
    }


def measure(count: int, folder: Path, workers: int) -> dict[str, Any]:
    data = folder / f"rows-{count}.jsonl"
    try:
        with data.open("w", encoding="utf8") as file:
            file.writelines(rows(count))
        figures = {"megabytes": data.stat().st_size // 10**6, "load_average": round(os.getloadavg()[0], 1)}
        first, again = (audited(data, folder, workers) for _ in range(2))
        if not again["from_cache"] or again["found"] != first["found"]:
            raise SystemExit("the cache did not answer as the audit did")
        return (
            figures
            | first
            | {"again_seconds": again["seconds"], "again_parent_resident_mb": again["parent_resident_mb"]}
        )
    finally:
        data.unlink(missing_ok=True)
        (folder / "audit.json").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    console = Console(highlight=False)
    args.folder.mkdir(parents=True, exist_ok=True)
    for count in args.rows:
        row: dict[str, Any] = {"date": date.today().isoformat(), "bench": "data_scale", "rows": count}
        row |= {"workers": args.workers, "figures": measure(count, args.folder.resolve(), args.workers)}
        row |= {"machine": platform.describe(), "commit": commit()}
        with OUT.open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")
        console.print(f"{count:,} rows: {json.dumps(row['figures'])}")


if __name__ == "__main__":
    main()
