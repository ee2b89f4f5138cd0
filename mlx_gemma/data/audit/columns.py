"""The second pass: rows compared with the rows kept before them. Exact and near duplicates, and contradictions.

Of the columns that the first pass left, keys that only one row has are dropped first: what then has nothing in common
with another row is not looked at again. The others are taken in order. Keys, buckets and sketches decide only what is
compared: the verdict is by the texts themselves, read again from where the rows wait.

A few hundred bytes a row, whatever the length of the texts, and linear in time. Rows made from one template would make
it quadratic, as they share buckets without being duplicates: so of a bucket the last rows kept are looked at, and of
all that are found the likeliest are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mlx_gemma.data.audit.findings import Found
from mlx_gemma.data.audit.scan import Scan, Traits
from mlx_gemma.data.audit.spool import Rows
from mlx_gemma.data.checks.duplicates import (
    PERMUTATIONS,
    Shingles,
    jaccard,
    normalised,
    normalised_answer,
    row_shingles,
)
from mlx_gemma.data.formats import Row
from mlx_gemma.data.reason import Reason

BUCKET = 1024  # rows of a bucket
COMPARED = 64  # rows read again for each row
EVERY = 256  # rows between two words about the progress
CACHED = 4096  # shingle sets, of some 3 KB
# By so many standard deviations, and two values, a sketch may agree less than expected and is still compared exactly.
# That loses at most one pair in 100,000 at the threshold (binomial, 0.5 to 0.99), a tenth of what LSH may miss.
MARGIN, AND = 5.0, 2

Ints = npt.NDArray[np.int32]


def compare(rows: Rows, traits: Traits, scan: Scan, told: Callable[[int], None]) -> Iterator[Found]:
    """Every row that repeats or contradicts an earlier one, in order.

    Args:
        rows: random access to what was scanned.
        traits: of all rows.
        told: the number of rows that are done, now and then.
    """
    texts = _Texts(rows)
    exact, prompts = _Shared(traits["row"], traits["passed"]), _Shared(traits["prompt"], traits["passed"])
    near = None if scan.near is None else _Near(traits, scan.near, texts)
    asked = exact.shared | prompts.shared
    for step, i in enumerate(np.flatnonzero(asked if near is None else asked | near.shared).tolist()):
        if step % EVERY == 0:
            told(i)
        if (first := exact.first(i)) is not None and texts.equal(first, i):
            where = texts.where(first)
            yield Found(i, texts.where(i), (Reason("exact_duplicates", f"repeats {where}", of=where),))
            continue
        reasons = list[Reason]()
        match = None if near is None else near.find(i)
        if match is not None:
            other, similarity = match
            where = texts.where(other)
            reasons.append(Reason("near_duplicates", f"{similarity:.2f} similar to {where}", of=where))
        answered = prompts.first(i)
        if answered is not None and texts.contradict(answered, i):
            where = texts.where(answered)
            reasons.append(Reason("contradictions", f"gives the prompt of {where} another answer", of=where))
        if reasons:
            yield Found(i, texts.where(i), tuple(reasons))
        if match is None and not scan.policy.rejects(reasons):
            exact.add(i)
            prompts.add(i)
            if near is not None:
                near.add(i)


class _Texts:
    """The rows' texts, read again where they are needed."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.shingles = lru_cache(CACHED)(self._shingles)

    def row(self, i: int) -> Row:
        row = self._rows[i]
        assert isinstance(row, Row)
        return row

    def where(self, i: int) -> str:
        return self.row(i).where

    def equal(self, i: int, j: int) -> bool:
        one, other = self.row(i), self.row(j)
        return normalised(one.prompt) == normalised(other.prompt) and normalised(one.answer) == normalised(other.answer)

    def contradict(self, i: int, j: int) -> bool:
        one, other = self.row(i), self.row(j)
        same = normalised(one.prompt) == normalised(other.prompt)
        return same and normalised_answer(one.answer) != normalised_answer(other.answer)

    def _shingles(self, i: int) -> Shingles:
        return row_shingles(self.row(i))


class _Shared:
    """The first row kept of each key that several rows have."""

    def __init__(self, keys: npt.NDArray[np.uint64], passed: npt.NDArray[np.bool_]) -> None:
        self._groups = _groups(keys, passed)
        self.shared = self._groups >= 0
        self._first: dict[int, int] = {}

    def first(self, i: int) -> int | None:
        return self._first.get(int(self._groups[i]))

    def add(self, i: int) -> None:
        if self.shared[i]:
            self._first.setdefault(int(self._groups[i]), i)


class _Near:
    """The rows kept of each bucket that several rows are in, searchable for the most similar one."""

    def __init__(self, traits: Traits, threshold: float, texts: _Texts) -> None:
        self._threshold, self._texts = threshold, texts
        self._sketch, self._size = traits["sketch"], traits["size"]
        self._least = PERMUTATIONS * threshold - MARGIN * math.sqrt(PERMUTATIONS * threshold * (1 - threshold)) - AND
        number = traits["bands"].shape[1]
        self._groups = np.empty((len(traits), number), np.int32)  # of each band, counted on from band to band
        sizes, total = [], 0
        for band in range(number):
            groups = _groups(traits["bands"][:, band], traits["passed"])
            sizes.append(np.bincount(groups[groups >= 0]).astype(np.int32))
            self._groups[:, band] = np.where(groups >= 0, groups + total, -1)
            total += len(sizes[-1])
        self.shared = (self._groups >= 0).any(axis=1)
        self._starts = np.concatenate([[0], np.cumsum(np.concatenate([*sizes, np.zeros(0, np.int32)]))])
        self._ends = self._starts[:-1].copy()
        self._kept = np.empty(self._starts[-1], np.int32)  # the rows of each group, from its start to its end

    def find(self, i: int) -> tuple[int, float] | None:
        """The most similar row kept, the earliest of equals, and how similar; None where none is similar enough."""
        best = None
        shingles = None
        for other in self._candidates(i):
            shingles = self._texts.shingles(i) if shingles is None else shingles
            similarity = jaccard(shingles, self._texts.shingles(other))
            if similarity >= self._threshold and (best is None or similarity > best[1]):
                best = other, similarity
        return best

    def _candidates(self, i: int) -> list[int]:
        """Rows in a bucket with row i whose size and sketch allow that they are similar enough, in order."""
        groups = self._groups[i]
        ends = ((g, self._ends[g]) for g in groups[groups >= 0].tolist())
        runs = [self._kept[max(self._starts[g], end - BUCKET) : end] for g, end in ends]
        found = np.unique(np.concatenate(runs)) if runs else np.empty(0, np.int32)
        small = np.minimum(self._size[found], self._size[i])
        found = found[small / np.maximum(self._size[found], self._size[i]) >= self._threshold]
        agree = (self._sketch[found] == self._sketch[i]).sum(axis=1)
        likely = np.flatnonzero(agree >= self._least)
        if len(likely) > COMPARED:
            likely = np.sort(likely[np.argsort(-agree[likely], kind="stable")[:COMPARED]])
        return list(found[likely].tolist())

    def add(self, i: int) -> None:
        groups = self._groups[i]
        groups = groups[groups >= 0]
        self._kept[self._ends[groups]] = i
        self._ends[groups] += 1


def _groups(keys: npt.NDArray[np.unsignedinteger], passed: npt.NDArray[np.bool_]) -> Ints:
    """The number of each row's group, of rows that passed with equal keys; -1 where the row is alone. int32 [n]."""
    groups = np.full(len(keys), -1, np.int32)
    among = np.flatnonzero(passed)
    order = among[np.argsort(keys[among], kind="stable")]
    ordered = keys[order]
    new = np.ones(len(order), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    number = np.cumsum(new) - 1
    several = np.bincount(number)[number] > 1 if len(order) else new
    counted = np.cumsum(new & several) - 1
    groups[order[several]] = counted[several]
    return groups
