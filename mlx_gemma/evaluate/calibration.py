"""Does a model know when it is right? Its confidence in each answer against whether the answer was correct.

    calibrate     -> Calibration: calibration error (equal-width and equal-mass bins), Brier score and its parts, AUROC
    confidence    an answer's token log-probabilities -> exp of their mean, a probability a token, not of the answer

Confidences are probabilities: that, or the probability of a decision point. The mean log-probability itself is no
probability, but ranks the same: evaluate/auroc.py takes any score. The picture: evaluate/reliability.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.auroc import Auroc, auroc, checked
from mlx_gemma.evaluate.calibration_error import Bin, CalibrationError, calibration_error
from mlx_gemma.evaluate.resample import Floats, Interval, cluster_index, mean_interval
from mlx_gemma.evaluate.stats import LEVEL, Rate, wilson

BINS = 10


@dataclass(frozen=True)
class Brier:
    """Mean squared distance of confidence and correctness, and its parts over the equal-width bins.

    `value` = reliability - resolution + uncertainty (Murphy 1973, Journal of Applied Meteorology 12:595-600) + within,
    what confidences that differ inside a bin add (Stephenson, Coelho and Jolliffe 2008, Weather and Forecasting
    23:752-757). The interval is a bootstrap's; all right or all wrong, it comes from Wilson's of the accuracy.
    """

    value: float
    interval: Interval
    reliability: float
    resolution: float
    uncertainty: float
    within: float

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.value:.3f} ({low:.3f}-{high:.3f}) = reliability {self.reliability:.3f} - resolution "
            f"{self.resolution:.3f} + uncertainty {self.uncertainty:.3f} {self.within:+.3f} inside of bins"
        )


@dataclass(frozen=True)
class Calibration:
    """Confidence against correctness of some answers; `auroc` is None where all or none are correct."""

    accuracy: Rate
    mean_confidence: float
    equal_width: CalibrationError
    equal_mass: CalibrationError
    brier: Brier
    auroc: Auroc | None

    def __str__(self) -> str:
        ranked = "not defined, as all are alike" if self.auroc is None else str(self.auroc)
        return (
            f"confidence {self.mean_confidence:.1%}, correct {self.accuracy}; calibration error {self.equal_width}; "
            f"Brier score {self.brier.value:.3f}; AUROC {ranked}"
        )


def confidence(log_probabilities: Sequence[float]) -> float:
    """exp of the mean of an answer's token log-probabilities (nats): their geometric mean probability.

    Raises:
        UserError: no tokens, or what is no log-probability (above 0 by more than rounding, not a number).
    """
    logs = np.asarray(log_probabilities, np.float64)
    if len(logs) == 0:
        raise UserError("an answer without tokens has no confidence", fix="leave it out")
    if not np.all(logs <= 1e-6):
        raise UserError("a log-probability is above 0 or not a number")
    return float(np.exp(min(0.0, logs.mean())))


def calibrate(
    confidences: Sequence[float],
    correct: Sequence[bool],
    *,
    clusters: Sequence[Hashable] | None = None,
    bins: int = BINS,
    level: float = LEVEL,
    seed: int = 0,
) -> Calibration:
    """Everything above, for probabilities. About 0.1 s for 134 answers, 2 s for 3,000.

    Args:
        clusters: what is not independent (a prompt drawn three times), as in evaluate/paired.py.
        bins: of equal width on 0 to 1; as many of equal mass, fewer where confidences tie.

    Raises:
        UserError: no answers, unequal numbers of them, a confidence that is no probability.
    """
    c, y = checked(confidences, correct)
    if not np.all((c >= 0) & (c <= 1)):
        raise UserError("a confidence is not between 0 and 1", fix="take exp of log-probabilities (confidence)")
    index = cluster_index(clusters, len(c))
    inner = np.unique(np.quantile(c, np.arange(1, bins) / bins, method="inverted_cdf"))
    equal_width = calibration_error(c, y, np.linspace(0, 1, bins + 1), index, level=level, seed=seed)
    equal_mass = calibration_error(
        c, y, np.r_[0.0, inner[(inner > 0) & (inner < c.max())], 1.0], index, level=level, seed=seed
    )
    return Calibration(
        accuracy=Rate(int(y.sum()), len(y)),
        mean_confidence=float(c.mean()),
        equal_width=equal_width,
        equal_mass=equal_mass,
        brier=_brier(c, y, equal_width.bins, index, level, seed),
        auroc=auroc(confidences, correct, clusters=clusters, level=level),
    )


def _brier(c: Floats, y: Floats, bins: Sequence[Bin], index: NDArray[np.intp], level: float, seed: int) -> Brier:
    squares, base = (c - y) ** 2, float(y.mean())
    shares = np.array([b.correct.total for b in bins]) / len(c)
    accuracies, confidences = np.array([b.correct.value for b in bins]), np.array([b.confidence for b in bins])
    reliability = float(shares @ (confidences - accuracies) ** 2)
    resolution = float(shares @ (accuracies - base) ** 2)
    uncertainty = base * (1 - base)
    value = float(squares.mean())
    clusters = int(index.max()) + 1
    if np.ptp(y) == 0:
        ends = [float(np.mean(p * (1 - c) ** 2 + (1 - p) * c**2)) for p in wilson(base * clusters, clusters, level)]
        interval = min(ends), max(ends)
    else:
        interval = mean_interval(squares, index, level=level, seed=seed) if clusters > 1 else (0.0, 1.0)
    within = value - (reliability - resolution + uncertainty)
    return Brier(value, interval, reliability, resolution, uncertainty, within)
