"""Build datasets/python3 and evals/python3.jsonl from the task families: the same bytes from the same seed.

    python -m mlx_gemma.data.build [--seed 0] [--check]        # about 20 s on one core; --check compares, writes nothing

1. The families are split by topic, about 80 / 10 / 10 %, into train, valid and test: no task is in two splits.
2. Train rows use every wording of a family but its last; valid, test and eval prompts are asked in the last only.
3. A row is taken only if it is less than LIMIT similar to every row taken before it, so that no two clean rows are near
   duplicates for the audit, and if its solution passes its checks under the Python that runs this.
4. raw.jsonl is the train rows with labelled faults (faults.py); raw.labels.jsonl says which, and no filter sees it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_gemma.data.card import write_card
from mlx_gemma.data.duplicates import NearIndex, normalised, row_shingles
from mlx_gemma.data.families import Family, Task, read_families, run_checks
from mlx_gemma.data.faults import add_faults
from mlx_gemma.data.formats import Row
from mlx_gemma.data.write import write_jsonl
from mlx_gemma.errors import DataError
from mlx_gemma.run import write_json

ROOT = Path(__file__).parents[2]
FAMILIES = ROOT / "datasets" / "python3" / "families"
SHARE = 0.11  # of each topic's families, for valid and for test
TRAIN, VALID, TEST, EVALS = 5000, 300, 300, 60  # rows wanted; where the families yield fewer, fewer are taken
LIMIT = 0.84  # the largest similarity two clean rows may have; the audit's threshold is FilterPolicy.near_duplicates
LICENSE = "Apache-2.0"


@dataclass(frozen=True)
class Sample:
    """A task in one of its wordings: what one row is made of."""

    task: Task
    wording: int

    @property
    def prompt(self) -> str:
        return self.task.ask[self.wording]

    @property
    def tests(self) -> dict[str, Any]:
        return {"check": list(self.task.check), "prints": self.task.prints, "stdin": self.task.stdin}

    def record(self, answer: str | None = None) -> dict[str, Any]:
        """The data row; `answer` in place of the fenced solution."""
        return {
            "messages": [
                {"role": "user", "content": self.prompt},
                {"role": "assistant", "content": answer or fenced(self.task.python3)},
            ],
            "family": self.task.family,
            "topic": self.task.topic,
            "tests": self.tests,
            "license": LICENSE,
        }

    def row(self) -> Row:
        return Row(self.record()["messages"], self.task.family)


def fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def split_families(families: list[Family], seed: int) -> dict[str, list[Family]]:
    """Families by split, every topic in its share: {"train", "valid", "test"}."""
    splits: dict[str, list[Family]] = {"train": [], "valid": [], "test": []}
    for topic in sorted({f.topic for f in families}):
        members = sorted((f for f in families if f.topic == topic), key=lambda f: f.name)
        random.Random(f"{seed}:{topic}").shuffle(members)
        n = max(1, round(SHARE * len(members)))
        splits["valid"] += members[:n]
        splits["test"] += members[n : 2 * n]
        splits["train"] += members[2 * n :]
    return splits


class Chooser:
    """Takes samples family by family in turn, each unlike all that were taken before."""

    def __init__(self, seed: int) -> None:
        self.seed, self.taken, self.prompts = seed, NearIndex(LIMIT), set[str]()

    def forget_answers(self) -> None:
        """From here on, likeness to earlier samples is no obstacle; their prompts still are."""
        self.taken = NearIndex(LIMIT)

    def choose(self, families: list[Family], count: int, *, last_wording: bool) -> list[Sample]:
        """Up to `count` samples, equally many of every family as far as they go."""
        queues = [self._fresh(f, last_wording) for f in families]
        chosen: list[Sample] = []
        while queues and len(chosen) < count:
            found = [(q, next(q, None)) for q in queues[: count - len(chosen)]]
            done = {id(q) for q, sample in found if sample is None}
            chosen += [sample for _, sample in found if sample is not None]
            queues = [q for q in queues if id(q) not in done]
        for sample in chosen:
            run_checks(sample.task.python3, sample.task)
        return chosen

    def _fresh(self, family: Family, last_wording: bool) -> Iterator[Sample]:
        last = len(family.fields["ask"]) - 1
        wordings = [last] if last_wording else list(range(last))
        order = [(i, w) for i in range(family.combinations) for w in wordings]
        random.Random(f"{self.seed}:{family.name}").shuffle(order)
        for index, wording in order:
            sample = Sample(family.task(index), wording)
            shingles = row_shingles(sample.row())
            if normalised(sample.prompt) not in self.prompts and self.taken.find(shingles) is None:
                self.prompts.add(normalised(sample.prompt))
                self.taken.add(family.name, shingles)
                yield sample


def build(out: Path, evals: Path, families: Path = FAMILIES, seed: int = 0) -> dict[str, str]:
    """Write the data set into `out` and the suite to `evals`; about 20 s, 200 MB.

    Returns:
        The sha256 of every file written, by its name; also in `out`/digests.json.

    Raises:
        DataError: a family that is wrong.
        CheckFailed: a solution that fails its own checks.
    """
    splits = split_families(read_families(families), seed)
    chooser = Chooser(seed)
    suite = chooser.choose(splits["test"], EVALS, last_wording=True)
    chooser.forget_answers()
    test = chooser.choose(splits["test"], TEST, last_wording=True)
    valid = chooser.choose(splits["valid"], VALID, last_wording=True)
    train = chooser.choose(splits["train"], TRAIN, last_wording=False)
    for samples in (train, valid, test):
        random.Random(f"{seed}:order").shuffle(samples)
    items = [
        {"id": f"python3-{n:03}", "family": s.task.family, "topic": s.task.topic, "prompt": s.prompt, "tests": s.tests}
        for n, s in enumerate(sorted(suite, key=lambda s: (s.task.topic, s.task.family, s.prompt)), 1)
    ]
    leaks = {s.prompt: fenced(s.task.python3) for s in suite}
    raw, labels = add_faults(train, [(item, leaks[str(item["prompt"])]) for item in items], random.Random(f"{seed}:raw"))

    write_jsonl(evals, items)
    files = {"train": train, "valid": valid, "test": test}
    for name, samples in files.items():
        write_jsonl(out / f"{name}.jsonl", (s.record() for s in samples))
    write_jsonl(out / "raw.jsonl", raw)
    write_jsonl(out / "raw.labels.jsonl", labels)
    paths = [*(out / f"{n}.jsonl" for n in ("train", "valid", "test", "raw", "raw.labels")), evals]
    digests = {p.name if p != evals else f"evals/{p.name}": _sha256(p) for p in paths}
    write_json(out / "digests.json", {"seed": seed, "sha256": digests})
    write_card(out / "README.md", {n: len(s) for n, s in files.items()}, splits, raw, labels, digests, seed)
    return digests


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def changed_files(out: Path, evals: Path, families: Path = FAMILIES) -> list[str]:
    """The files whose contents differ from what a build with their seed gives; costs a build.

    Raises:
        DataError: there is no digests.json in `out`.
    """
    try:
        recorded = json.loads((out / "digests.json").read_text(encoding="utf8"))
    except (OSError, ValueError) as e:
        raise DataError("no readable digests.json", where=out, fix="run python -m mlx_gemma.data.build") from e
    with tempfile.TemporaryDirectory() as folder:
        digests = build(Path(folder), Path(folder) / "evals" / evals.name, families, recorded["seed"])
    found = {name: evals if name.startswith("evals/") else out / name for name in digests}
    return [n for n, path in found.items() if not path.exists() or _sha256(path) != digests[n]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the python3 data set from its families.")
    parser.add_argument("--out", type=Path, default=ROOT / "datasets" / "python3")
    parser.add_argument("--evals", type=Path, default=ROOT / "evals" / "python3.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare the files with a fresh build; write nothing")
    args = parser.parse_args()
    if args.check:
        changed = changed_files(args.out, args.evals)
        print("\n".join(f"changed: {name}" for name in changed) or "all files are as built")
        return 1 if changed else 0
    for name, digest in build(args.out, args.evals, seed=args.seed).items():
        print(f"{digest[:16]}  {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
