"""Counts of texts whose number is not known beforehand: exact for the frequent ones, in bounded memory for the rest.

`Frequent` counts every text exactly by a 64-bit hash (12 bytes a distinct text), and remembers only the texts that may
be frequent: by Misra and Gries' summary with TEXTS counters, which can be merged (Agarwal et al., Mergeable Summaries,
2012) and never loses a text that makes up more than 1 / TEXTS of all. The result does not depend on how the texts were
divided among workers.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from itertools import chain

import numpy as np
import numpy.typing as npt

TEXTS = 4096  # texts remembered; one in TEXTS is the least share that is reported of a larger number
BUFFER = 4 * TEXTS  # distinct texts counted in a dictionary before they are folded away
LONGEST = 200  # characters of a text remembered


class Frequent:
    """Texts counted. About 0.5 us a text that repeats, 3 us one that does not; 12 bytes a distinct text."""

    def __init__(self) -> None:
        self._buffer: Counter[str] = Counter()
        self._candidates: Counter[str] = Counter()
        self._hashes: npt.NDArray[np.uint64] = np.empty(0, np.uint64)  # sorted, distinct
        self._counts: npt.NDArray[np.uint32] = np.empty(0, np.uint32)
        self._folded: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]] = []  # not yet sorted in
        self.total = 0

    def add(self, text: str) -> None:
        """Count a text; of one longer than LONGEST, its first characters and a hash of the whole are kept."""
        self.total += 1
        self._buffer[text if len(text) <= LONGEST else f"{text[:LONGEST]}\0{_hash(text):016x}"] += 1
        if len(self._buffer) > BUFFER:
            self._fold()

    def merge(self, other: Frequent) -> None:
        """Add what another has counted."""
        self.total += other.total
        self._buffer.update(other._buffer)
        self._folded += [*other._folded, (other._hashes, other._counts)]
        self._remember(other._candidates)
        if len(self._buffer) > BUFFER:
            self._fold()

    def distinct(self) -> int:
        """How many different texts there were."""
        if not self._folded and not self._hashes.size:
            return len(self._buffer)
        self._fold()
        self._sort_in()
        return int(self._hashes.size)

    def most(self, count: int | None = None) -> list[tuple[str, int]]:
        """(text, times) from the most frequent on, ties by text; `count` of them or all that are known for certain.

        All texts are known where there are at most TEXTS, else those that make up more than 1 / TEXTS of the total.
        """
        many = self.distinct() > TEXTS
        exact = self._exact() if self._hashes.size else self._buffer
        sure = ((t, n) for t, n in exact.items() if not many or n * TEXTS > self.total)
        return [(t.split("\0")[0], n) for t, n in sorted(sure, key=lambda e: (-e[1], e[0]))[:count]]

    def nbytes(self) -> int:
        """Bytes of the columns, and of the remembered texts as they are in memory."""
        columns = sum(h.nbytes + c.nbytes for h, c in [*self._folded, (self._hashes, self._counts)])
        return columns + sum(len(t) + 120 for t in chain(self._buffer, self._candidates))

    def _exact(self) -> dict[str, int]:
        texts = list(self._candidates)
        at = np.searchsorted(self._hashes, np.fromiter(map(_hash, texts), np.uint64, len(texts)))
        return dict(zip(texts, map(int, self._counts[at]), strict=True))

    def _fold(self) -> None:
        """The buffer's texts become hashes with counts, and candidates."""
        if self._buffer:
            n = len(self._buffer)
            hashes = np.fromiter(map(_hash, self._buffer), np.uint64, n)
            self._folded.append((hashes, np.fromiter(self._buffer.values(), np.uint32, n)))
            self._remember(self._buffer)
            self._buffer = Counter()
        if sum(h.size for h, _ in self._folded) > max(self._hashes.size, 16 * BUFFER):  # so that sorting stays linear
            self._sort_in()

    def _sort_in(self) -> None:
        parts = [(self._hashes, self._counts), *self._folded]
        hashes, inverse = np.unique(np.concatenate([h for h, _ in parts]), return_inverse=True)
        counts = np.bincount(inverse, weights=np.concatenate([c for _, c in parts]), minlength=hashes.size)
        self._hashes, self._counts, self._folded = hashes, counts.astype(np.uint32), []

    def _remember(self, counts: Counter[str]) -> None:
        self._candidates.update(counts)
        if len(self._candidates) > TEXTS:
            least = sorted(self._candidates.values(), reverse=True)[TEXTS]
            self._candidates = Counter({t: n - least for t, n in self._candidates.items() if n > least})


def _hash(text: str) -> int:
    """64 bits, the same in every process (Python's own hash is not); two of a million texts collide once in 10^7."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
