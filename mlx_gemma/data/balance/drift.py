"""Whether two splits differ in length: an effect size first, for a large split makes any difference significant.

    drift(train.lengths("answers"), valid.lengths("answers"))

Lengths may be characters or tokens, as long as both are the same. Cost: sorting, some 0.5 s for a million.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_gemma.data.balance.counts import Balance
from mlx_gemma.data.balance.findings import CHECK
from mlx_gemma.data.reason import Reason

LARGE = 0.2  # largest distance of the two distribution functions, from which on it is a finding
SIGNIFICANT = 0.01
SMALL = 250_000  # pairs of lengths: below it p is exact; the asymptotic one is wrong for a few rows

Lengths = npt.NDArray[np.int32] | npt.NDArray[np.int64]


@dataclass(frozen=True)
class Drift:
    """How two samples of lengths differ.

    Attributes:
        distance: Kolmogorov-Smirnov: the largest distance between the two distribution functions, 0 to 1.
        p: the probability of at least that distance between two samples of one distribution.
        longer: the probability that one drawn from the first is longer than one from the second, ties half:
            0.5 is no difference (the common-language effect size, McGraw and Wong 1992).
        medians: of the first and of the second.
    """

    distance: float
    p: float
    longer: float
    medians: tuple[float, float]

    @property
    def large(self) -> bool:
        """Whether it is worth a word: `distance` of at least LARGE, and no accident."""
        return self.distance >= LARGE and self.p < SIGNIFICANT

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def drift(one: Lengths, other: Lengths) -> Drift:
    """Compare two samples, [n] and [m], neither empty."""
    from scipy.stats import ks_2samp

    method = "exact" if one.size * other.size <= SMALL else "asymp"
    found = ks_2samp(one, other, method=method)
    ordered = np.sort(other)
    below = np.searchsorted(ordered, one, "left").mean() / ordered.size
    below_or_equal = np.searchsorted(ordered, one, "right").mean() / ordered.size
    medians = float(np.median(one)), float(np.median(other))
    return Drift(float(found.statistic), float(found.pvalue), float((below + below_or_equal) / 2), medians)


def length_drift(splits: Mapping[str, Balance]) -> Iterator[Reason]:
    """A finding for every two splits whose prompts or answers differ much in length, in characters."""
    filled = {name: balance for name, balance in splits.items() if balance.rows}
    for (a, one), (b, other) in combinations(filled.items(), 2):
        for part in ("prompts", "answers"):
            found = drift(one.lengths(part), other.lengths(part))
            if found.large:
                medians = "{:.0f} and {:.0f} characters".format(*found.medians)
                says = (
                    f"{part} of {a} and {b} differ in length: medians of {medians}, {a}'s the longer in "
                    f"{found.longer:.0%} of pairs (KS distance {found.distance:.2f})"
                )
                yield Reason(CHECK, says, f"{part} drift")
