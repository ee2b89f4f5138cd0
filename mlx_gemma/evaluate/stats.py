"""Rates that say how sure they are.

    Rate      count of total with its Wilson 95 % interval
    cells     one rate a query type, marked descriptive under 20 items
    newcombe  interval for the difference of two rates on the same items, by formula

Two models on the same items: evaluate/paired.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
DESCRIPTIVE_BELOW = 20  # a Wilson interval is then some 40 points wide at one half


def wilson(count: float, total: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval (1927); counts need not be whole. Of nothing: 0 to 1."""
    from scipy.stats import norm

    if total <= 0:
        return 0.0, 1.0
    z, share = float(norm.ppf((1 + level) / 2)), count / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    low, high = (middle - half) / (1 + z * z / total), (middle + half) / (1 + z * z / total)
    return (0.0 if count == 0 else low), (1.0 if count == total else high)


@dataclass(frozen=True)
class Rate:
    """`count` of `total`, with its Wilson 95 % interval."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0 to 1; NaN of nothing."""
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.count, self.total)

    def __str__(self) -> str:
        if self.total == 0:
            return "0/0"
        low, high = self.interval
        return f"{self.count}/{self.total} {self.count / self.total:.1%} ({low:.1%}-{high:.1%})"


@dataclass(frozen=True)
class Cell:
    """The rate of one query type; too small a cell describes these items and says little of others."""

    name: str
    rate: Rate

    @property
    def descriptive(self) -> bool:
        return self.rate.total < DESCRIPTIVE_BELOW

    def __str__(self) -> str:
        return f"{self.name}: {self.rate}{', descriptive only' if self.descriptive else ''}"


def cells(names: Sequence[str], outcomes: Sequence[bool]) -> list[Cell]:
    """One rate a name, in order of appearance; the overall rate is `Rate`'s, not the mean of these."""
    found: dict[str, list[bool]] = {}
    for name, outcome in zip(names, outcomes, strict=True):
        found.setdefault(name, []).append(outcome)
    return [Cell(name, Rate(sum(of), len(of))) for name, of in found.items()]


def newcombe(both: float, first: float, second: float, neither: float, level: float = LEVEL) -> tuple[float, float]:
    """Interval for the second rate minus the first, from a paired 2 x 2 table (counts may be fractions).

    Newcombe (1998, Statistics in Medicine 17:2635-2650), method 10: squares of Wilson's distances are added, less twice
    their product times the correlation phi, whose numerator is corrected for continuity where it is positive.
    """
    total = both + first + second + neither
    if total <= 0:
        return -1.0, 1.0
    one, two = both + first, both + second
    p, q = one / total, two / total
    (p_low, p_high), (q_low, q_high) = wilson(one, total, level), wilson(two, total, level)
    margins = one * two * (total - one) * (total - two)
    cross = both * neither - first * second
    phi = (max(cross - total / 2, 0) if cross > 0 else cross) / math.sqrt(margins) if margins > 0 else 0.0

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x + y * y - 2 * phi * x * y, 0.0))

    return q - p - reach(q - q_low, p_high - p), q - p + reach(q_high - q, p - p_low)
