"""Rates that say how sure they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """`count` of `total`, with its Wilson 95 % interval (scipy.stats.binomtest)."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        from scipy.stats import binomtest

        found = binomtest(self.count, self.total).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        if self.total == 0:
            return "0/0"
        low, high = self.interval
        return f"{self.count}/{self.total} {self.count / self.total:.1%} ({low:.1%}-{high:.1%})"
