"""Rows that occur twice: exactly (after normalisation), or nearly (Jaccard similarity of their character shingles).

Near duplicates are looked up by MinHash LSH (128 permutations) and then verified by the exact Jaccard similarity, so
the hashes decide only what is compared, not what is rejected. A row is compared with the rows kept so far: of several
alike the first stays, and no chain of small steps ties unlike rows together. Deterministic.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from mlx_gemma.data.formats import Row

PERMUTATIONS = 128
SHINGLE = 3  # characters: a slip of the finger then touches three or four shingles of some hundred
MISSED = 1e-4  # share of pairs at the threshold that LSH may miss; its own default misses half of them

COMMENT = re.compile(r"(^|\s)#\s.*$", re.MULTILINE)
PUNCTUATION = re.compile(r"[^\w\s()\[\]{}<>=+*/%-]")

Shingles = frozenset[str]


@dataclass(frozen=True)
class Match:
    """The row that another one repeats, and how similar they are (1.0: equal after normalisation)."""

    where: str
    similarity: float


def normalised(text: str) -> str:
    """The form in which two texts are called exactly equal: NFKC, every run of white space one blank."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def prompt_shingles(text: str) -> Shingles:
    """Character shingles of a request; case, white space and punctuation (but brackets, operators) do not count."""
    return _shingles("", PUNCTUATION.sub("", normalised(text).casefold()))


def row_shingles(row: Row) -> Shingles:
    """Shingles of prompt and answer, kept apart by a mark; comments and layout of the answer's code do not count."""
    return prompt_shingles(row.prompt) | _shingles("\0", normalised(COMMENT.sub("", row.answer)))


def _shingles(mark: str, text: str) -> Shingles:
    return frozenset(mark + text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1)))


def jaccard(one: Shingles, other: Shingles) -> float:
    both = len(one & other)
    return both / (len(one) + len(other) - both)


class ExactIndex:
    """Texts seen so far, by their normalised form."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def find(self, *texts: str) -> str | None:
        """Where texts equal to these were first added."""
        return self._seen.get(self._key(texts))

    def add(self, where: str, *texts: str) -> None:
        self._seen.setdefault(self._key(texts), where)

    def _key(self, texts: tuple[str, ...]) -> str:
        return "\0".join(map(normalised, texts))


class NearIndex:
    """Shingle sets added so far, searchable for one at least `threshold` similar (0 < threshold <= 1)."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self.threshold = threshold
        self._lsh: Any = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(threshold))
        self._sets: list[tuple[str, Shingles]] = []

    def find(self, shingles: Shingles) -> Match | None:
        """The most similar set, the earliest of equals; None where none reaches the threshold."""
        best = None
        for i in sorted(self._lsh.query(_minhash(shingles))):
            where, other = self._sets[i]
            similarity = jaccard(shingles, other)
            if similarity >= self.threshold and (best is None or similarity > best.similarity):
                best = Match(where, similarity)
        return best

    def add(self, where: str, shingles: Shingles) -> None:
        self._lsh.insert(len(self._sets), _minhash(shingles))
        self._sets.append((where, shingles))


def _bands(threshold: float) -> tuple[int, int]:
    """(bands, rows) of LSH: the longest bands, for the fewest vain comparisons, that miss at most MISSED."""
    fit = [r for r in range(2, 17) if (1 - threshold**r) ** (PERMUTATIONS // r) <= MISSED]
    rows = max(fit, default=1)
    return PERMUTATIONS // rows, rows


@cache
def _empty() -> Any:
    from datasketch import MinHash

    # crc32 in place of sha1: a fifth of the time, the same on every machine, and the exact check follows anyway.
    return MinHash(num_perm=PERMUTATIONS, hashfunc=zlib.crc32)


@lru_cache(maxsize=1)  # a set is looked up, then added
def _minhash(shingles: Shingles) -> Any:
    sketch = _empty().copy()  # a copy shares the permutations, whose drawing would take longer than all the rest
    sketch.update_batch([s.encode("utf-8", "surrogatepass") for s in shingles])
    return sketch
