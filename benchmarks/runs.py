"""What running the answers finds beside reading them (`mlx-gemma audit --run`): by label, and what it takes.

    python benchmarks/runs.py       # some 6,500 programs in the sandbox: five minutes on two idle cores

A row of benchmarks/data.jsonl. Of every row with tests whose code reads as Python 3 the tests are run. Parts:

raw      datasets/python3/raw.jsonl against its labels, which come from how a row was made; unlabelled rows are sound.
comply   1,000 rows, of which a fifth does as a wrong request says (`data build --pushback-answer comply`), by kind.
correct  the same requests, answered with a correction: sound.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from training import commit

from mlx_gemma import platform
from mlx_gemma.data.build.adversarial import AdversarialSample
from mlx_gemma.data.build.python3 import choose
from mlx_gemma.data.checks.runs import Runs
from mlx_gemma.data.formats import Row, read_rows
from mlx_gemma.data.python.source import classify
from mlx_gemma.evaluate.answers_run import Sandboxed

ROOT = Path(__file__).parents[1]
DATA = ROOT / "datasets" / "python3"


def judged(rows: Iterable[tuple[str, Row]], runner: Sandboxed) -> dict[str, Any]:
    """By label: rows, those that reading calls Python 2, broken or truncated, and those of the others that fail."""
    counts: dict[str, Counter[str]] = {}
    labels, left, examples = [], [], list[str]()
    for label, row in rows:
        of = counts.setdefault(label, Counter(rows=0, read=0, run=0))
        of["rows"] += 1
        if classify(row.answer).kind in ("python2", "broken", "truncated"):
            of["read"] += 1
        else:
            left.append((len(labels), row))
        labels.append(label)
    runs, began = Runs(runner), time.perf_counter()
    for number, row, reason in runs.failing(left):
        counts[labels[number]]["run"] += 1
        if labels[number] == "sound":
            examples.append(f"{row.where}: {reason.message}")
    seconds = time.perf_counter() - began
    return {
        "labels": {label: dict(of) for label, of in counts.items()},
        "outcomes": runs.result(),
        "sound rows that fail": examples,
        "seconds": round(seconds, 1),
        "ms a program": round(1000 * seconds / runs.outcomes.total(), 1),
    }


def raw() -> Iterable[tuple[str, Row]]:
    with (DATA / "raw.labels.jsonl").open() as file:
        labels = {found["row"]: found["label"] for found in map(json.loads, file)}
    return ((labels.get(n, "sound"), row) for n, row in enumerate(read_rows(DATA / "raw.jsonl"), 1))


def adversarial(answer: Any) -> Iterable[tuple[str, Row]]:
    for n, sample in enumerate(choose(0, 1000, 0.2, answer).samples["train"]):
        record = sample.record()
        label = sample.kind if isinstance(sample, AdversarialSample) and answer == "comply" else "sound"
        if isinstance(sample, AdversarialSample) or answer == "comply":
            yield label, Row(record["messages"], f"{n}", {"tests": record["tests"]})


def main() -> None:
    runner = Sandboxed.proved()
    figures: dict[str, Any] = {"wall": runner.wall.kind}
    figures |= {"raw": judged(raw(), runner), "comply": judged(adversarial("comply"), runner)}
    figures["correct"] = judged(adversarial("correct"), runner)
    print(json.dumps(figures, indent=1))
    row = {"date": date.today().isoformat(), "bench": "runs", "figures": figures}
    row |= {"machine": platform.describe(), "commit": commit()}
    with (Path(__file__).parent / "data.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
