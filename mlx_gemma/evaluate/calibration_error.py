"""Expected calibration error: how far confidence is from accuracy, over bins of answers of similar confidence.

It is biased upwards: on n answers even a perfectly calibrated model shows some. So it stands beside what such a model
would show on the same confidences (consistency resampling: Broecker and Smith 2007, Weather and Forecasting
22:651-661), and with its bias taken off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlx_gemma.evaluate.resample import CHUNK, Floats, Interval, bootstrap, expanded
from mlx_gemma.evaluate.stats import Rate, wilson

RESAMPLES = 1_999  # of answers, and of calibrated models


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence, above `low` and up to `high` (0 falls in the first).

    `confidence` is their mean confidence.
    """

    low: float
    high: float
    confidence: float
    correct: Rate


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error, 0 to 1, over one set of bins (edges held fixed).

    Attributes:
        value: sum over bins of share x |mean confidence - accuracy| (Naeini, Cooper and Hauskrecht 2015, AAAI).
        interval: 95 %, bootstrap over clusters: above, the percentile; below, the basic one, reflected about `value`,
            as resampling adds its bias a second time; from 0 where a calibrated model would show as much. All right or
            all wrong, where nothing varies: from Wilson's interval of the accuracy.
        debiased: `value` less its expected excess were each bin's accuracy normal (Kumar, Liang and Ma 2019, NeurIPS,
            appendix; the expectation of a folded normal), at least 0.
        if_calibrated, if_calibrated_most: mean and 97.5 % quantile of `value` for a perfectly calibrated model with
            these confidences, the answers of a cluster right or wrong together.
    """

    value: float
    interval: Interval
    debiased: float
    if_calibrated: float
    if_calibrated_most: float
    bins: tuple[Bin, ...]

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.value:.3f} ({low:.3f}-{high:.3f}), {self.debiased:.3f} without its bias; "
            f"a calibrated model would show {self.if_calibrated:.3f}, up to {self.if_calibrated_most:.3f}"
        )


def calibration_error(
    c: Floats, y: Floats, edges: Floats, index: NDArray[np.intp], *, level: float, seed: int
) -> CalibrationError:
    """From confidences, correctness (0 or 1) and cluster numbers, each (answers,), over bins (edge, edge].

    Args:
        edges: ascending, (bins + 1,), from 0 to 1. Empty bins are left out of the result.
    """
    which = np.searchsorted(edges[1:-1], c)
    value = _error(c - y, which)
    calibrated = _if_calibrated(c, which, index, seed)
    most = float(np.quantile(calibrated, (1 + level) / 2))
    low, high = _interval(c, y, which, index, value, level, seed)
    return CalibrationError(
        value,
        (0.0 if value <= most else low, high),
        max(0.0, value - _excess(c, y, which)),
        float(calibrated.mean()),
        most,
        tuple(
            Bin(
                float(edges[k]),
                float(edges[k + 1]),
                float(c[inside].mean()),
                Rate(int(y[inside].sum()), len(y[inside])),
            )
            for k in np.unique(which)
            for inside in [which == k]
        ),
    )


def _error(gaps: Floats, which: NDArray[np.intp]) -> float:
    return float(np.abs(np.bincount(which, weights=gaps)).sum() / len(gaps))


def _if_calibrated(c: Floats, which: NDArray[np.intp], index: NDArray[np.intp], seed: int) -> Floats:
    rng, clusters = np.random.default_rng(seed), int(index.max()) + 1
    inside = np.eye(int(which.max()) + 1)[which]
    rows = max(1, CHUNK // len(c))
    drawn = []
    for start in range(0, RESAMPLES, rows):
        right = rng.random((min(rows, RESAMPLES - start), clusters))[:, index] < c
        drawn.append(np.abs((c - right) @ inside).sum(axis=1) / len(c))
    return np.concatenate(drawn)


def _excess(c: Floats, y: Floats, which: NDArray[np.intp]) -> float:
    """Expected |N(gap, sd)| less |gap|, summed over bins; a bin that is all right or all wrong adds nothing."""
    from scipy.special import ndtr

    counts, right = np.bincount(which), np.bincount(which, weights=y)
    gaps = np.bincount(which, weights=c - y)
    mixed = (right > 0) & (right < counts)
    n, gap, share = counts[mixed], gaps[mixed] / counts[mixed], right[mixed] / counts[mixed]
    sd = np.sqrt(share * (1 - share) / n)
    folded = sd * math.sqrt(2 / math.pi) * np.exp(-((gap / sd) ** 2) / 2) + gap * (1 - 2 * ndtr(-gap / sd))
    return float(np.sum(n * (folded - np.abs(gap))) / len(c))


def _interval(
    c: Floats, y: Floats, which: NDArray[np.intp], index: NDArray[np.intp], value: float, level: float, seed: int
) -> Interval:
    sizes = np.bincount(index)
    if np.ptp(y) == 0:
        span = np.linspace(*wilson(float(y[0]) * len(sizes), len(sizes), level), 101)
        return float(np.abs(c.mean() - span).min()), max(_error(c - accuracy, which) for accuracy in span)
    if len(sizes) == 1:
        return 0.0, 1.0
    gaps = np.zeros((len(sizes), int(which.max()) + 1))
    np.add.at(gaps, (index, which), c - y)
    counts = np.ones(len(sizes), np.intp)
    drawn = bootstrap(lambda w: np.abs(w @ gaps).sum(axis=1) / (w @ sizes), counts, seed=seed, resamples=RESAMPLES)
    edge = expanded(level, len(sizes))
    top = float(np.quantile(drawn, 1 - edge))
    return max(0.0, 2 * value - top), top
