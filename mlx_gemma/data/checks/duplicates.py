"""Rows that occur twice: exactly (after normalisation), or nearly (Jaccard similarity of their character shingles).

Near duplicates are looked up by MinHash LSH (128 permutations) and then verified by the exact Jaccard similarity, so
the hashes decide only what is compared, not what is rejected. A row is compared with the rows kept so far: of several
alike the first stays, and no chain of small steps ties unlike rows together. Deterministic.

`ExactIndex` and `NearIndex` are for thousands of texts; audit/columns.py does the same for millions, by columns.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_gemma.data.formats import Row

PERMUTATIONS = 128
SHINGLE = 3  # characters: a slip of the finger then touches three or four shingles of some hundred
MISSED = 1e-4  # share of pairs at the threshold that LSH may miss; its own default misses half of them

COMMENT = re.compile(r"(^|\s)#\s.*$", re.MULTILINE)
PUNCTUATION = re.compile(r"[^\w\s()\[\]{}<>=+*/%-]")

BITS = 21  # of a code point; three of them and the mark of an answer fill a uint64
END = (1 << BITS) - 1  # no code point: fills the shingle of a text shorter than three

Shingles = npt.NDArray[np.uint64]
"""A set of shingles: sorted, each once, each shingle one number, so that equal numbers are equal shingles."""
Signature = npt.NDArray[np.uint32]
"""MinHash values, one a permutation: uint32 [PERMUTATIONS]."""


@dataclass(frozen=True)
class Match:
    """The row that another one repeats, and how similar they are (1.0: equal after normalisation)."""

    where: str
    similarity: float


def normalised(text: str) -> str:
    """The form in which two texts are called exactly equal: NFKC, every run of white space one blank."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def normalised_answer(text: str) -> str:
    """An answer as near duplicates and contradictions see it: `normalised`, comments of its code left out."""
    return normalised(COMMENT.sub("", text))


def prompt_shingles(text: str) -> Shingles:
    """Character shingles of a request; case, white space and punctuation (but brackets, operators) do not count."""
    return np.unique(_shingles(0, PUNCTUATION.sub("", normalised(text).casefold())))


def answer_shingles(text: str) -> Shingles:
    """Character shingles of an answer; comments and layout of its code do not count."""
    return np.unique(_shingles(1, normalised_answer(text)))


def row_shingles(row: Row) -> Shingles:
    """Shingles of prompt and answer, those of the answer kept apart by a mark: a set of both."""
    return np.concatenate([prompt_shingles(row.prompt), answer_shingles(row.answer)])  # the mark is the highest bit


def _shingles(mark: int, text: str) -> Shingles:
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    if len(points) < SHINGLE:
        points = np.append(points, np.full(SHINGLE - len(points), END, np.uint64))
    packed = points[:-2] << np.uint64(2 * BITS) | points[1:-1] << np.uint64(BITS) | points[2:]
    return packed | np.uint64(mark << 63)


def jaccard(one: Shingles, other: Shingles) -> float:
    """Shared shingles over all shingles of two sets, 0 to 1."""
    total = len(one) + len(other)
    both = np.sort(np.concatenate([one, other]), kind="stable")  # of two sorted runs: a merge
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (total - shared)


def signature(shingles: Shingles) -> Signature:
    """The MinHash of a set, by datasketch's 32-bit affine permutations. About 0.1 ms for 400 shingles."""
    mixed = (shingles ^ shingles >> np.uint64(31)) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)
    sketch = _empty().copy()  # a copy shares the permutations, whose drawing would take longer than all the rest
    sketch.update_batch(mixed.tolist())
    values: Signature = sketch.hashvalues
    return values


@cache
def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows) of LSH: the longest bands, for the fewest vain comparisons, that miss at most MISSED."""
    fit = [r for r in range(2, 17) if (1 - threshold**r) ** (PERMUTATIONS // r) <= MISSED]
    rows = max(fit, default=1)
    return PERMUTATIONS // rows, rows


class ExactIndex:
    """Texts seen so far, by their normalised form."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], str] = {}

    def find(self, *texts: str) -> str | None:
        """Where texts equal to these were first added."""
        return self._seen.get(self._key(texts))

    def add(self, where: str, *texts: str) -> None:
        self._seen.setdefault(self._key(texts), where)

    def _key(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(normalised, texts))


class NearIndex:
    """Shingle sets added so far, searchable for one at least `threshold` similar (0 < threshold <= 1)."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._bands, self._rows = bands(threshold)
        self._buckets: dict[bytes, list[int]] = {}
        self._sets: list[tuple[str, Shingles]] = []
        self._last: tuple[Shingles, list[bytes]] | None = None

    def find(self, shingles: Shingles) -> Match | None:
        """The most similar set, the earliest of equals; None where none reaches the threshold."""
        best = None
        for i in sorted({i for key in self._keys(shingles) for i in self._buckets.get(key, ())}):
            where, other = self._sets[i]
            similarity = jaccard(shingles, other)
            if similarity >= self.threshold and (best is None or similarity > best.similarity):
                best = Match(where, similarity)
        return best

    def add(self, where: str, shingles: Shingles) -> None:
        for key in self._keys(shingles):
            self._buckets.setdefault(key, []).append(len(self._sets))
        self._sets.append((where, shingles))

    def _keys(self, shingles: Shingles) -> list[bytes]:
        """The set's bucket in every band."""
        if self._last is None or self._last[0] is not shingles:  # a set is looked up, then added
            values = signature(shingles)[: self._bands * self._rows].reshape(self._bands, self._rows)
            self._last = shingles, [bytes([band]) + v.tobytes() for band, v in enumerate(values)]
        return self._last[1]


@cache
def _empty() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, scheme="affine32", hashfunc=int)
