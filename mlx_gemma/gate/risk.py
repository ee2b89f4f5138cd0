"""The threshold from which at most a share alpha of the specialist's outputs is bad, with confidence 1 - delta.

    split            a third of the queries chooses, the others test; groups (paraphrases, twins) stay together
    accept_threshold the least threshold that the tests bear out, or None
    out_threshold    the threshold below which the tests show more than alpha, or None
    needed           how many accepted queries without one bad output would do

Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei, arXiv 2110.01052) with fixed-sequence testing. The first
part says which thresholds are tested, in what order and from where; the second tests, each with the exact binomial
p-value of

    P(bad | score >= t) > alpha,

from the start towards lower t, until the first that is not rejected. The order does not depend on the second part, so
the chance that any true hypothesis is rejected is at most delta, whatever the distribution of scores and outputs. Of a
group one random query is tested: the others are no independent evidence. What is assumed is that the tested queries are
independent draws of what the gate will meet; nothing is said of other queries.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_gemma.errors import UserError

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

# Of 200 to 600 queries of three known distributions, one half sent 1 to 25 % fewer queries to the specialist.
SHARE = 1 / 3
GRID = 40  # thresholds tested at most; more would end the walk at a lower one's noise


@dataclass(frozen=True)
class Bound:
    """What the testing part says.

    Attributes:
        threshold: None where nothing could be shown.
        start: the threshold that was tested first.
        tested: queries of the testing part, one a group.
        accepted, bad: of these, with a score from `threshold` (or `start`) on, and with a bad output. For an out
            threshold: below it.
        limit: exact (Clopper-Pearson) bound at 1 - delta on their rate, upper, for an out threshold lower.
    """

    threshold: float | None
    start: float
    tested: int
    accepted: int
    bad: int
    limit: float


def needed(alpha: float, delta: float) -> int:
    """The least number of queries which, none bad, show a rate of at most alpha with confidence 1 - delta."""
    return math.ceil(math.log(delta) / math.log1p(-alpha))


def check_levels(alpha: float, delta: float) -> None:
    """Raises UserError: alpha or delta is not between 0 and 1."""
    for name, value in (("alpha", alpha), ("delta", delta)):
        if not 0 < value < 1:
            raise UserError(f"{name} is {value}", fix="give a number between 0 and 1, e.g. 0.1")


def split(groups: Sequence[Hashable], types: Sequence[str], seed: int) -> Bools:
    """Which queries choose the score and the order of thresholds, (queries,); the others test.

    SHARE of the groups of each type, by the type of a group's first query; of what is left over a draw decides.
    """
    rng = np.random.default_rng(seed)
    of_type: dict[str, list[Hashable]] = {}
    for group, kind in dict(zip(reversed(groups), reversed(types), strict=True)).items():
        of_type.setdefault(kind, []).append(group)
    first = set[Hashable]()
    for kind in sorted(of_type):
        members = sorted(of_type[kind], key=str)
        size = math.floor(len(members) * SHARE + rng.random())
        first.update(members[i] for i in rng.permutation(len(members))[:size])
    return np.array([group in first for group in groups], bool)


def one_a_group(groups: Sequence[Hashable], seed: int) -> NDArray[np.intp]:
    """Index of one random query of every group, ascending."""
    order = np.random.default_rng(seed).permutation(len(groups))
    return np.array(sorted({groups[i]: i for i in order}.values()), np.intp)


def accept_threshold(first: tuple[Floats, Bools], second: tuple[Floats, Bools], *, alpha: float, delta: float) -> Bound:
    """The least threshold reached by the walk.

    Args:
        first: scores (queries,) and whether the specialist's output was bad, of the part that chooses.
        second: the same of the part that tests, one query a group.
    """
    grid = _grid(first[0])[::-1]
    start = int(np.argmin(_p_at_most(*_above(grid, *first), alpha)))
    accepted, bad = _above(grid, *second)
    rejected = _p_at_most(accepted, bad, alpha)[start:] <= delta
    reached = _walk(rejected)
    at = start + max(reached - 1, 0)
    limit = _upper(int(accepted[at]), int(bad[at]), delta)
    threshold = float(grid[at]) if reached else None
    return Bound(threshold, float(grid[start]), len(second[0]), int(accepted[at]), int(bad[at]), limit)


def out_threshold(
    first: tuple[Floats, Bools], second: tuple[Floats, Bools], *, alpha: float, delta: float, below: float
) -> Bound:
    """The largest threshold, at most `below`, under which every stretch of scores shows a rate above alpha.

    The stretches are tested from the lowest upwards to the first that is not shown, at a delta of its own: one rate for
    all below would hide behind the worst what is nearly good enough.
    """
    edges = stretches(first[0], below)
    scores, bad = second
    inside = (scores >= edges[:-1, None]) & (scores < edges[1:, None])
    reached = _walk(_p_at_least(inside.sum(axis=1), (inside & bad).sum(axis=1), alpha) <= delta)
    under = scores < edges[reached]
    total, found = int(under.sum()), int(bad[under].sum())
    threshold = float(edges[reached]) if reached else None
    return Bound(threshold, float(edges[1]), len(scores), total, found, 1 - _upper(total, total - found, delta))


def stretches(scores: Floats, below: float) -> Floats:
    """Edges of the stretches of scores that `out_threshold` tests, from minus infinity: deciles, and `below`."""
    edges = np.unique(np.quantile(scores, np.linspace(0.1, 1, 10), method="lower"))
    last = below if math.isfinite(below) else np.nextafter(edges[-1], math.inf)
    return np.concatenate([[-math.inf], edges[edges < last], [last]])


def _grid(scores: Floats) -> Floats:
    """Thresholds, ascending: the scores, or GRID of their quantiles."""
    distinct = np.unique(scores)
    return (
        distinct if len(distinct) <= GRID else np.unique(np.quantile(scores, np.linspace(0, 1, GRID), method="lower"))
    )


def _walk(rejected: Bools) -> int:
    """How many are rejected before the first that is not."""
    return len(rejected) if rejected.all() else int(np.argmin(rejected))


def _above(grid: Floats, scores: Floats, bad: Bools) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Queries with a score of at least each threshold, and the bad ones of these, (grid,)."""
    reach = scores[None, :] >= grid[:, None]
    return reach.sum(axis=1), (reach & bad).sum(axis=1)


def _p_at_most(total: NDArray[np.intp], bad: NDArray[np.intp], alpha: float) -> Floats:
    """p-values of "the rate is above alpha": the chance of so few bad ones at alpha. 1 where there are no queries."""
    from scipy.stats import binom

    return np.asarray(binom.cdf(bad, total, alpha), np.float64)


def _p_at_least(total: NDArray[np.intp], bad: NDArray[np.intp], alpha: float) -> Floats:
    """p-values of "the rate is at most alpha": the chance of so many bad ones at alpha."""
    from scipy.stats import binom

    return np.asarray(binom.sf(bad - 1, total, alpha), np.float64)


def _upper(total: int, bad: int, delta: float) -> float:
    from scipy.stats import beta

    return 1.0 if bad == total else float(beta.ppf(1 - delta, bad + 1, total - bad))
