"""What a score is worth for sending queries to the specialist: the risk-coverage curve, and confidence from a score.

The risk at a coverage is the share of bad outputs among the queries of the highest scores that make up this coverage
(El-Yaniv and Wiener 2010, JMLR 11:1605-1641); a score is good where risk rises late. `area` is the curve's mean: AURC
(Geifman, Uziel and El-Yaniv 2019, arXiv 1805.08206), lower is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Knots = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curve:
    """One point a distinct score, from the highest: queries with at least this score.

    Attributes:
        threshold, coverage, risk: (points,); coverage and risk are shares, 0 to 1.
        area: mean risk over all coverages k / n; among equal scores any order is as likely.
    """

    threshold: Floats
    coverage: Floats
    risk: Floats
    area: float


def risk_coverage(scores: Floats, bad: Bools) -> Curve:
    """O(n log n).

    Args:
        scores, bad: (queries,), at least one.
    """
    order = np.argsort(-scores, kind="stable")
    s, b = scores[order], bad[order].astype(np.float64)
    last = np.flatnonzero(np.r_[s[1:] != s[:-1], True])  # the last query of each distinct score
    total = last + 1.0
    found = np.cumsum(b)[last]
    # Inside of a tie the bad ones are met evenly, on average over its orders.
    each = np.arange(1, len(s) + 1)
    met = np.interp(each, np.r_[0, total], np.r_[0, found])
    return Curve(s[last], total / len(s), found / total, float(np.mean(met / each)))


def isotonic(scores: Floats, good: Bools, weights: Floats) -> Knots:
    """Chance of a good output as a function of the score that never falls: (score, chance), ascending in both.

    Isotonic regression (pool adjacent violators); of each block half a good and half a bad query more are counted, as
    a handful of good ones is no certainty. Between blocks the chance is to be interpolated.

    Args:
        scores, good, weights: (queries,); a query of a group of n weighs 1 / n.
    """
    from scipy.optimize import isotonic_regression

    at, where = np.unique(scores, return_inverse=True)
    total = np.bincount(where, weights)
    found = np.bincount(where, weights * good)
    blocks = isotonic_regression(found / total, weights=total).blocks
    knots: list[tuple[float, float]] = []
    highest = 0.0
    for start, end in pairwise(blocks):
        chance = (found[start:end].sum() + 0.5) / (total[start:end].sum() + 1)
        highest = max(highest, float(chance))
        knots += [(float(score), highest) for score in dict.fromkeys((at[start], at[end - 1]))]
    return tuple(knots)
