"""Resampling that keeps together what belongs together: bootstrap intervals and sign-flip tests over clusters.

Items of one task family, or three draws of one prompt, are alike: they are drawn, or change sides, as one cluster.
Seeded, so the same data give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_gemma.errors import UserError

Floats = NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 4_999
CHUNK = 2**20  # numbers drawn at once: 8 MiB


def cluster_index(clusters: Sequence[Hashable] | None, items: int) -> NDArray[np.intp]:
    """Each item's cluster as a number from 0 in order of appearance, (items,); None: every item its own.

    Raises:
        UserError: not one cluster an item.
    """
    if clusters is None:
        return np.arange(items)
    if len(clusters) != items:
        raise UserError(f"{len(clusters)} clusters for {items} items", fix="give one an item")
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(c, len(seen)) for c in clusters], np.intp)


def cluster_sums(values: Floats, index: NDArray[np.intp]) -> Floats:
    """Sum of the values, (items,), in each cluster: (clusters,)."""
    return np.bincount(index, weights=values).astype(np.float64)


def bootstrap(
    statistic: Callable[[Floats], Floats], counts: NDArray[np.intp], *, seed: int, resamples: int = RESAMPLES
) -> Floats:
    """Bootstrap distribution of a statistic, (resamples,).

    Args:
        statistic: of weights (draws, kinds), how many clusters of each kind were drawn, to (draws,).
        counts: clusters of each kind, (kinds,). Clusters that the statistic cannot tell apart are one kind: the same
            distribution, and much less to draw.
    """
    rng, total = np.random.default_rng(seed), int(counts.sum())
    rows = max(1, CHUNK // len(counts))
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate(
        [statistic(rng.multinomial(total, counts / total, size).astype(np.float64)) for size in sizes]
    )


def expanded(level: float, clusters: int) -> float:
    """Lower quantile of a bootstrap distribution at which a percentile interval of this level begins.

    The expanded percentile interval of Hesterberg (2015, The American Statistician 69:371-386, section 4.3): the plain
    one is too narrow by t against normal and by sqrt((n - 1) / n), which shows with some 20 clusters.
    """
    from scipy.stats import norm, t

    if clusters < 2:
        return 0.0
    return float(norm.cdf(t.ppf((1 - level) / 2, clusters - 1) * np.sqrt(clusters / (clusters - 1))))


def mean_interval(values: Floats, index: NDArray[np.intp], *, level: float, seed: int) -> Interval:
    """Expanded percentile interval for the mean of values, (items,), whole clusters drawn.

    Not BCa: on paired rates over 20 to 200 clusters, 10 % of items or more differing (eight settings, 1,500 simulated
    suites each), that covered in 88 to 95 %, as it mends skewness but not narrowness; the plain percentile interval in
    92 to 96 %, this one in 93 to 96 %. Values that are all alike give an interval without width.
    """
    sums, sizes = cluster_sums(values, index), cluster_sums(np.ones_like(values), index)
    kinds, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    drawn = bootstrap(lambda weights: (weights @ kinds[:, 0]) / (weights @ kinds[:, 1]), counts, seed=seed)
    edge = expanded(level, len(sums))
    low, high = np.quantile(drawn, [edge, 1 - edge])
    return float(low), float(high)


def sign_flip_p(sums: Floats, *, seed: int = 0) -> float:
    """Two-sided p-value of the sum of cluster differences, each of which could as well have had the other sign.

    Exact for whole numbers, by convolution: with one item a cluster it is the exact McNemar test. Otherwise from 4,999
    random sign patterns (Phipson and Smyth 2010: the observed one counts too).

    Args:
        sums: (clusters,), second minus first.
    """
    sizes = np.abs(sums[sums != 0])
    observed = abs(float(sums.sum()))
    if len(sizes) == 0:
        return 1.0
    if not np.all(sizes == np.round(sizes)):
        rng, reached = np.random.default_rng(seed), 0
        rows = max(1, CHUNK // len(sizes))
        for start in range(0, RESAMPLES, rows):
            signs = rng.integers(0, 2, (min(rows, RESAMPLES - start), len(sizes))) * 2 - 1
            reached += int(np.sum(np.abs(signs @ sizes) >= observed * (1 - 1e-12)))
        return (1 + reached) / (1 + RESAMPLES)
    chances = np.ones(1)
    for size, clusters in zip(*np.unique(sizes.astype(int), return_counts=True), strict=True):
        steps = np.zeros(2 * size * clusters + 1)
        steps[:: 2 * size] = [math.comb(int(clusters), k) / 2 ** int(clusters) for k in range(clusters + 1)]
        chances = np.convolve(chances, steps)
    totals = np.arange(len(chances)) - float(sizes.sum())
    return float(min(1.0, chances[np.abs(totals) >= observed].sum()))
