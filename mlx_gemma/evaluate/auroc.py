"""Does confidence rank right answers above wrong ones? The area under the ROC curve, for scores of any scale."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.resample import Floats, Interval, cluster_index
from mlx_gemma.evaluate.stats import LEVEL


@dataclass(frozen=True)
class Auroc:
    """Chance that a correct answer had the higher confidence than a wrong one (ties: half), with 95 % interval."""

    value: float
    interval: Interval

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} ({low:.3f}-{high:.3f})"


def auroc(
    scores: Sequence[float],
    correct: Sequence[bool],
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> Auroc | None:
    """Area under the ROC curve of any scores; None where all or none are correct. O(n log n).

    The interval is Newcombe's (2006, Statistics in Medicine 25:559-573, method 5): all areas from which this one is
    less than z of Hanley and McNeil's standard errors away. Bootstrap and DeLong have no width where the ranking is
    perfect and no variance with a single wrong answer, which is what a good model leaves. Of a class, clusters are
    counted and not answers: as cautious as if the answers of a cluster were one.

    Raises:
        UserError: as calibrate, but scores may be any finite numbers.
    """
    from scipy.stats import rankdata

    s, y = checked(scores, correct)
    right, wrong = int(y.sum()), int(len(y) - y.sum())
    if right == 0 or wrong == 0:
        return None
    value = (float(rankdata(s)[y == 1].sum()) - right * (right + 1) / 2) / (right * wrong)
    index = cluster_index(clusters, len(s))
    m, n = len(np.unique(index[y == 1])), len(np.unique(index[y == 0]))
    return Auroc(value, _auroc_interval(value, m, n, level))


def _auroc_interval(value: float, m: int, n: int, level: float) -> Interval:
    from scipy.stats import norm

    z, more = float(norm.ppf((1 + level) / 2)), (m + n) / 2 - 1

    def outside(area: float) -> bool:
        variance = area * (1 - area) * (1 + more * ((1 - area) / (2 - area) + area / (1 + area))) / (m * n)
        return abs(area - value) > z * math.sqrt(variance)

    def edge(far: float, near: float) -> float:
        if not outside(far):
            return far
        for _ in range(50):
            middle = (far + near) / 2
            far, near = (middle, near) if outside(middle) else (far, middle)
        return near

    return edge(0.0, value), edge(1.0, value)


def checked(scores: Sequence[float], correct: Sequence[bool]) -> tuple[Floats, Floats]:
    """Scores and correctness (0 or 1) as arrays, or a UserError in one line."""
    s, y = np.asarray(scores, np.float64), np.asarray(correct, np.float64)
    if len(s) != len(y):
        raise UserError(f"{len(s)} confidences for {len(y)} answers", fix="give one an answer")
    if len(s) == 0:
        raise UserError("no answers to calibrate on")
    if not np.all(np.isfinite(s)):
        raise UserError("a confidence is not a finite number", fix="leave out answers without one")
    if not np.all(np.isin(y, (0, 1))):
        raise UserError("an answer is neither correct nor wrong", fix="give true or false")
    return s, y
