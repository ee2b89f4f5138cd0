"""A run's loss curve as numbers that noise does not fool: levels, their errors, and progress counted in learning rate.

Losses are compared as logarithms, so 0.1 means 10 % whatever the data: an update's loss varies in proportion to its
level (its rows are few and of different lengths), and 0.03 nats a token is as real a level as 3. Levels are medians,
their standard error 1.25 sigma / sqrt(n), sigma being that of one update, from the differences of neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mlx_gemma.training import plot

FLOOR = 1e-3  # nats a token; below it nothing is left to learn, and the logarithm would make much of nothing
WOBBLE = 0.02  # of validation losses while the rate is high: 0.01 to 0.03 in runs on nano


class Point(plot.Point, Protocol):
    """One update; a training's `Progress` is one."""

    @property
    def rate(self) -> float: ...
    @property
    def skipped(self) -> str | None: ...


class Curve:
    """What the rules look at.

    Attributes:
        step, x: of the applied updates with a finite loss: their numbers, the logarithms of their losses.
        done: the share of the run's summed learning rate that was spent by then. Thirds of it are thirds of the way
            whatever warm-up and decay are; a third of the updates is not (the last tenth of a cosine moves nothing).
        sigma: standard deviation of one update's x around its level.
        vstep, v, vdone, vsigma: the same of the validation losses; vsigma by second differences, WOBBLE if under six.

    Args:
        history: every update of the run, in order.
        before: the validation loss before the first update, where it was measured.
    """

    def __init__(self, history: Sequence[Point], before: float | None = None) -> None:
        rates = np.array([p.rate if p.skipped is None and math.isfinite(p.rate) else 0.0 for p in history])
        spent = np.cumsum(rates) if rates.sum() > 0 else np.arange(1.0, len(rates) + 1)
        spent /= spent[-1] if len(spent) else 1.0
        applied = [i for i, p in enumerate(history) if p.skipped is None and math.isfinite(p.loss)]
        self.step = np.array([history[i].step for i in applied])
        self.x = np.log(np.maximum([history[i].loss for i in applied], FLOOR))
        self.done = spent[applied]
        self.sigma = _deviation(np.diff(self.x)) / math.sqrt(2)
        first = [(0, before, 0.0)] if before is not None else []
        later = [(p.step, p.valid_loss, spent[i]) for i, p in enumerate(history) if p.valid_loss is not None]
        measured = [m for m in first + later if math.isfinite(m[1])]
        self.vstep = np.array([step for step, _, _ in measured])
        self.v = np.log(np.maximum([loss for _, loss, _ in measured], FLOOR))
        self.vdone = np.array([done for _, _, done in measured])
        wobble = self.v[self.vstep > 0]  # the fall from the untrained model's loss is no wobble
        self.vsigma = _deviation(np.diff(wobble, 2)) / math.sqrt(6) if len(wobble) > 5 else WOBBLE

    def third(self, number: int) -> np.ndarray:
        """x of the first, second or last third of the way (0, 1, 2)."""
        return self.x[(self.done > number / 3) & (self.done <= (number + 1) / 3 + 1e-9)]

    def error(self, *levels: np.ndarray) -> float:
        """Standard error of a sum or difference of the medians of these stretches."""
        return 1.25 * self.sigma * math.sqrt(sum(1 / max(1, len(level)) for level in levels))

    def drop(self, before: np.ndarray, after: np.ndarray, errors: float, least: float) -> bool:
        """Whether the level fell by more than `least` and by more than so many standard errors."""
        if not len(before) or not len(after):
            return False
        fall = float(np.median(before) - np.median(after))
        return fall > max(least, errors * self.error(before, after))

    def climb(self) -> tuple[tuple[int, float], tuple[int, float]] | None:
        """The highest climb of the running median, as (update, level) before and after, if it is more than noise.

        Compared with the lowest level of all stretches before, and with the first update, whose loss is still the
        untrained model's: a collapse within the warm-up has nothing else before it.
        """
        width = min(99, max(7, len(self.x) // 15))  # more would cost memory in long runs, and is not needed
        level = np.concatenate([self.x[:1], running_median(self.x, width)])
        errors = np.array([self.sigma] + [self.error(self.x[:width])] * (len(level) - 1))
        low = [0]
        for i in range(1, len(level) - width):
            low.append(i if level[i] < level[low[-1]] else low[-1])
        before = np.array([0] * min(width + 1, len(level)) + low[1:])[: len(level)]  # no stretch overlaps its own
        rise = level - level[before]
        first = min(self.x[0], float(np.median(self.x[:5])))
        limit = np.maximum(math.log(2), 5.5 * np.hypot(errors, errors[before]))
        lost = np.flatnonzero((rise > limit) & (level > first - math.log(2)))
        if not len(lost):
            return None
        high = int(lost[np.argmax(rise[lost])])
        low_step, high_step = (int(self.step[max(0, i - 1 + width // 2 * (i > 0))]) for i in (before[high], high))
        return (low_step, float(level[before[high]])), (high_step, float(level[high]))


def _deviation(values: np.ndarray) -> float:
    """Standard deviation by the median absolute deviation, which a few wild values do not move."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def running_median(values: np.ndarray, width: int) -> np.ndarray:
    """Medians of each `width` neighbours, len(values) - width + 1 of them."""
    if len(values) < width:
        return np.array([])
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1))
