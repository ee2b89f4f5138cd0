"""The first pass: every row alone. What its checks find, and by what it can be compared with others afterwards.

Rows are scanned a chunk at a time: in this process where they are few, else in worker processes (workers.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_gemma.data.audit.findings import Found
from mlx_gemma.data.balance.counts import Balance
from mlx_gemma.data.checks.duplicates import (
    PERMUTATIONS,
    Signature,
    bands,
    normalised,
    row_shingles,
    signature,
)
from mlx_gemma.data.formats import BadRow, Row
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.data.reason import Reason, RowCheck

Traits = npt.NDArray[np.void]
"""A record a row, of the fields of `Scan.traits`; zero where the row did not pass."""


@dataclass(frozen=True)
class Scanned:
    """What was found in a chunk, its rows counted from 0; the traits of all its rows; what they are made of."""

    found: list[Found]
    traits: Traits
    balance: Balance


@dataclass(frozen=True)
class Scan:
    """What is done with every row; can be pickled. `balance`: whether it is counted what the rows are made of."""

    policy: FilterPolicy
    checks: tuple[RowCheck, ...]
    balance: bool = True

    @property
    def near(self) -> float | None:
        """The similarity from which rows are near duplicates; None: they are not looked for."""
        return None if self.policy.near_duplicates == "keep" else self.policy.near_duplicates

    @property
    def traits(self) -> np.dtype[Any]:
        """Keys are equal where texts are, but not only there. 221 bytes a row at a similarity of 0.9, 21 without."""
        number, rows = (bands(self.near)[0], PERMUTATIONS) if self.near else (0, 0)
        return np.dtype(
            [
                ("passed", bool),  # no reason to leave the row out so far
                ("prompt", "u8"),  # key of the normalised prompt
                ("row", "u8"),  # key of normalised prompt and answer
                ("size", "i4"),  # shingles of prompt and answer
                ("bands", "u4", (number,)),  # the row's bucket in each band of LSH
                ("sketch", "u1", (rows,)),  # eight bits of each MinHash value
            ]
        )

    def chunk(self, rows: Sequence[Row | BadRow]) -> Scanned:
        """Scan some rows."""
        traits, found, balance = np.zeros(len(rows), self.traits), [], Balance()
        for i, row in enumerate(rows):
            if reasons := self._reasons(row):
                found.append(Found(i, row.where, reasons))
            if isinstance(row, Row) and self.balance:
                balance.add(row)
            if isinstance(row, Row) and not self.policy.rejects(reasons):
                self._describe(row, traits[i])
        return Scanned(found, traits, balance)

    def _reasons(self, row: Row | BadRow) -> tuple[Reason, ...]:
        if isinstance(row, BadRow):
            return (Reason("malformed", f"{row.what}; {row.fix}"),)
        return tuple(reason for check in self.checks for reason in check(row))

    def _describe(self, row: Row, traits: np.void) -> None:
        prompt, answer = normalised(row.prompt), normalised(row.answer)
        traits["passed"] = True
        traits["prompt"], traits["row"] = _key(prompt), _key(prompt, answer)
        if self.near is not None:
            shingles = row_shingles(row)
            values = signature(shingles)
            traits["size"] = len(shingles)
            traits["bands"] = _buckets(values, *bands(self.near))
            traits["sketch"] = values >> 8  # the lowest bits of an affine permutation are the least mixed


def _key(*texts: str) -> int:
    parts = b"".join(blake2b(text.encode("utf8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return int.from_bytes(parts if len(texts) == 1 else blake2b(parts, digest_size=8).digest(), "little")


def _buckets(values: Signature, number: int, length: int) -> npt.NDArray[np.uint32]:
    """A 32-bit hash of each band of a signature: uint32 [number]."""
    hashed = np.full(number, 0x811C9DC5, np.uint32)
    for column in values[: number * length].reshape(number, length).T:
        hashed = (hashed ^ column) * np.uint32(0x01000193)
        hashed ^= hashed >> np.uint32(15)
    return hashed
