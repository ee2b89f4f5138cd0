"""What a check found in a row: the one form in which every check of a data set speaks.

A check that looks at one row alone is a function, or an object that can be called, `(row: Row) -> Iterator[Reason]`.
It is pure, deterministic, linear in the row's length, and raises on no text whatever. It can be pickled, because it
runs in worker processes; what is expensive to set up is made once a process, on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlx_gemma.data.formats import Row


@dataclass(frozen=True)
class Reason:
    """What one check found in one row."""

    check: str
    """the check's name, which is its key in a recipe's `filter:`"""
    message: str
    """one line for people: what, and where in the row ("line 3, column 5: ...")"""
    name: str = ""
    """the kind of thing found, for counting: "xrange", "AWS key", "B602" """
    of: str | None = None
    """`where` of the other row concerned: the one repeated, contradicted or leaked"""


RowCheck = Callable[[Row], Iterator[Reason]]
