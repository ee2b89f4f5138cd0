"""How long the rows are in tokens, and what the recipe's length would cut off, by type of task.

    lengths = Lengths(gemma.template, length=1024)
    lengths.add(rows)                       # again and again; memory does not grow with the rows
    print(lengths.as_json()["all"]["lost"])

Counted is what training counts: conversations rendered through the model's own chat template, cut where
training/prepare.py cuts them. rendered.py shows single rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_gemma.data.formats import Row
from mlx_gemma.data.rendered import examples
from mlx_gemma.data.row_keys import KEYS, value_of
from mlx_gemma.errors import DataError
from mlx_gemma.gemma4.template import ChatTemplate, Example

TYPES = 40  # the most that are told apart; the rows of more are counted as OTHERS
OTHERS = "(others)"
NAME = 80  # characters of a type
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BINS = 30
WIDTHS = [step * 10**power for power in range(10) for step in (1, 2, 5)]  # tokens
BATCH_ROWS, BATCH_SIZE = 256, 2**20  # rendered at once: rows, characters


class Histogram:
    """How often each length occurs: exact percentiles, in memory for as many numbers as there are different lengths."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def percentiles(self) -> dict[str, float]:
        """`p1` to `p99`, `min`, `max` and `mean`; empty where nothing was counted.

        A percentile is the smallest length that occurs and that so many percent of the rows do not exceed.
        """
        if not self.counts:
            return {}
        lengths = np.array(sorted(self.counts), np.int64)
        times = np.array([self.counts[int(n)] for n in lengths], np.int64)
        reached, total = times.cumsum(), int(times.sum())
        at = {f"p{p}": int(lengths[np.searchsorted(reached, p / 100 * total)]) for p in PERCENTILES}
        return {"min": int(lengths[0])} | at | {"max": int(lengths[-1]), "mean": float((lengths * times).sum() / total)}

    def bins(self) -> list[tuple[int, int, int]]:
        """(first length, last length, rows) of some BINS bins of one width; beyond p99 is one, as long as need be."""
        if not self.counts:
            return []
        least = int(self.percentiles()["p99"]) + 1
        width = next(w for w in WIDTHS if least <= BINS * w)
        rows = Counter[int]()
        number = -(-least // width)
        for length, times in self.counts.items():
            rows[min(length // width, number)] += times
        found = [(width * i, width * (i + 1) - 1, rows[i]) for i in range(number)]
        return [*found, (width * number, max(self.counts), rows[number])] if rows[number] else found


@dataclass
class Group:
    """The rows of one type of task. Tokens: `trained` by their loss, `context` all others, `whole` both."""

    rows: int = 0
    cut: int = 0  # rows longer than the recipe's length
    untrainable: int = 0  # of these, rows left without a trained token: they are dropped
    trained: int = 0  # trained tokens before the cut
    lost: int = 0  # of these, cut off
    lengths: dict[str, Histogram] = field(
        default_factory=lambda: {part: Histogram() for part in ("context", "trained", "whole")}
    )

    def add(self, example: Example, length: int) -> None:
        whole, trained = len(example.tokens), example.targets
        for part, n in (("context", whole - trained), ("trained", trained), ("whole", whole)):
            self.lengths[part].counts[n] += 1
        lost = sum(example.supervised[length:])
        self.rows += 1
        self.cut += whole > length
        self.untrainable += lost == trained
        self.trained += trained
        self.lost += lost

    def as_json(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("rows", "cut", "untrainable", "trained", "lost")}
        return counts | {"tokens": {part: histogram.percentiles() for part, histogram in self.lengths.items()}}


class Lengths:
    """Adds up the lengths of a data set's rows. About 0.25 ms a row of this project's size, on one core.

    Args:
        length: the recipe's `train.length`, in tokens.
        turns: the recipe's `data.turns`: `all` of the model's turns are trained, or only the `last`.
    """

    def __init__(self, template: ChatTemplate, length: int, *, turns: str = "all") -> None:
        self.template, self.length, self.turns = template, length, turns
        self.all = Group()
        self.types: dict[str, Group] = {}
        self.refused = 0  # rows that the chat template does not render
        self.refusal: DataError | None = None  # why not, of the first

    def add(self, rows: Iterable[Row]) -> None:
        """Count rows; what the template refuses is counted apart."""
        for batch in _batches(rows):
            for row, example in zip(batch, examples(self.template, batch, turns=self.turns), strict=True):
                if isinstance(example, DataError):
                    self.refused += 1
                    self.refusal = self.refusal or example
                    continue
                self.all.add(example, self.length)
                if kind := value_of(row.extra, KEYS["tasks"]):
                    self._group(kind[:NAME]).add(example, self.length)

    def _group(self, kind: str) -> Group:
        if kind not in self.types and len(self.types) >= TYPES:
            kind = OTHERS
        return self.types.setdefault(kind, Group())

    def as_json(self) -> dict[str, Any]:
        """Everything counted; `all` and each of `types` as `Group` has it; `histogram` of all rows as bins."""
        return {
            "template_digest": self.template.digest,
            "length": self.length,
            "refused": self.refused,
            "all": self.all.as_json(),
            "histogram": {part: self.all.lengths[part].bins() for part in ("whole", "trained")},
            "types": {kind: group.as_json() for kind, group in self.types.items()},
        }


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch, size = list[Row](), 0
    for row in rows:
        batch.append(row)
        size += sum(len(m["content"]) for m in row.messages)
        if len(batch) == BATCH_ROWS or size >= BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
