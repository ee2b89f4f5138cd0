"""Which tasks, in which wording, become rows: families split, and samples chosen that are unlike one another."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mlx_gemma.data.build.families import Family, Task, run_checks
from mlx_gemma.data.checks.duplicates import NearIndex, normalised, row_shingles
from mlx_gemma.data.formats import Row

SHARE = 0.11  # of each topic's families, for valid and for test
LIMIT = 0.86  # the largest similarity two clean rows may have; the audit's threshold is FilterPolicy.near_duplicates
LICENSE = "Apache-2.0"

F = TypeVar("F", bound=Family)
S = TypeVar("S", bound="Sample")


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


def split_families(families: list[F], seed: int) -> dict[str, list[F]]:
    """Families by split, every topic in its share: {"train", "valid", "test"}."""
    splits: dict[str, list[F]] = {"train": [], "valid": [], "test": []}
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
        return self.choose_from([self._wordings(f, last_wording) for f in families], count)

    def choose_from(self, candidates: Sequence[Iterator[S]], count: int) -> list[S]:
        """Up to `count` samples, one of every iterator in turn as far as they go.

        Raises:
            CheckFailed: a solution that fails its own checks.
        """
        queues = [self._unlike(c) for c in candidates]
        chosen: list[S] = []
        while queues and len(chosen) < count:
            found = [(q, next(q, None)) for q in queues[: count - len(chosen)]]
            done = {id(q) for q, sample in found if sample is None}
            chosen += [sample for _, sample in found if sample is not None]
            queues = [q for q in queues if id(q) not in done]
        for sample in chosen:
            run_checks(sample.task.python3, sample.task)
        return chosen

    def _wordings(self, family: Family, last_wording: bool) -> Iterator[Sample]:
        last = len(family.fields["ask"]) - 1
        wordings = [last] if last_wording else list(range(last))
        order = [(i, w) for i in range(family.combinations) for w in wordings]
        random.Random(f"{self.seed}:{family.name}").shuffle(order)
        return (Sample(family.task(index), wording) for index, wording in order)

    def _unlike(self, candidates: Iterator[S]) -> Iterator[S]:
        for sample in candidates:
            shingles = row_shingles(sample.row())
            if normalised(sample.prompt) not in self.prompts and self.taken.find(shingles) is None:
                self.prompts.add(normalised(sample.prompt))
                self.taken.add(sample.task.family, shingles)
                yield sample
