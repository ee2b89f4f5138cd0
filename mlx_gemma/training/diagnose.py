"""What a loss curve says, in plain language: seven kinds, told apart by rules of one threshold each.

The rules are asked in this order; levels, errors and "thirds of the way" are curve.py's.

- *unstable*: the last update or 5 % of them (at least 3) were not finite; or the running median climbs to over double
  (and 5.5 errors over) an earlier level, to half of the first loss or more: what was learned is lost; or the run ends
  50 % (and 4 errors) over its first five updates. A batch of long or hard rows does not move a median of 7 or more, and
  memorised rows may flicker far below the first loss.
- *too short to tell*: under 20 applied updates; or nothing moved, and noise could hide that the loss was halved.
- *overfitting since step N*: validation ends 3 % (and 3 deviations) over its lowest level while training does not rise.
  Medians of three measurements from seven on; with fewer one wobble weighs more, so 10 %.
- *not learning*: neither the training loss (5 %, 4 errors) nor validation (3 %, 3 deviations) ends below its beginning.
- *noisy labels possible*: over the last two thirds training falls by 15 % (and 3 errors) to under three quarters of the
  validation loss, which does not move and stays over 0.1 nats. Wrong answers can only be learned by heart, row by row,
  and keep the loss of held-out ones up; under 0.1 nats there is no room for them. **The curve alone cannot tell them
  from right but hard rows that are seen too often** (nano on 320 docstrings is called this), nor from overfitting once
  validation rises, so the sentence names both. Without validation it is never said.
- *still learning*: in the last third of the way validation falls by 2 % (and 2 deviations); without 4 measurements of
  it, the training loss by 3 % (and 3 errors).
- *converged*: it fell, and it does not fall any more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlx_gemma.training.curve import Curve, Point, running_median

Kind = Literal[
    "still learning",
    "converged",
    "overfitting",
    "not learning",
    "unstable",
    "noisy labels possible",
    "too short to tell",
]
FEWEST = 20
SLOWER = "lower train.lr to a third or less"


@dataclass(frozen=True)
class Diagnosis:
    """What happened, from which update on where that can be said, and what to do."""

    kind: Kind
    sentence: str
    step: int | None
    advice: str


def diagnose(history: Sequence[Point], before: float | None = None) -> Diagnosis:
    """Diagnose a finished or interrupted run. About 1 ms for 1,000 updates.

    Args:
        history: its updates, in order.
        before: the validation loss before the first update. Where it is known, a fall that was over before the first
            measurement is not taken for none.
    """
    curve = Curve(history, before)
    found = _not_finite(history)
    if found is None and len(curve.x) < FEWEST:
        what = f"{len(curve.x)} updates are too few to tell learning from noise"
        return Diagnosis("too short to tell", what, None, f"train at least {FEWEST} updates, better 100")
    for rule in (_climbs, _overfits, _worse, _learned_nothing, _learns_by_heart, _still_falls):
        found = found or rule(curve)
    return found or _converged(curve)


def _not_finite(history: Sequence[Point]) -> Diagnosis | None:
    bad = [p.step for p in history if p.skipped is not None or not math.isfinite(p.loss)]
    if not bad or (len(bad) < max(3, 0.05 * len(history)) and bad[-1] != history[-1].step):
        return None
    what = f"{len(bad)} of {len(history)} updates had no finite loss or gradient, the first of them update {bad[0]}"
    return Diagnosis("unstable", what, bad[0], "halve train.lr, and look at the rows that metrics.jsonl names there")


def _climbs(c: Curve) -> Diagnosis | None:
    climb = c.climb()
    if climb is None:
        return None
    (before, low), (after, high) = climb
    what = f"the training loss climbed from {_nats(low)} at update {before} to {_nats(high)} at update {after}"
    return Diagnosis("unstable", what, before, f"{SLOWER}, or lengthen train.warmup")


def _valid_levels(c: Curve) -> np.ndarray:
    """Validation losses, each the median of itself and its neighbours where there are seven or more."""
    if len(c.v) < 7:
        return c.v
    ends = [np.median(c.v[:2])], [np.median(c.v[-3:])]
    return np.concatenate([ends[0], running_median(c.v, 3), ends[1]])


def _overfits(c: Curve) -> Diagnosis | None:
    if len(c.v) < 3:
        return None
    level, smooth = _valid_levels(c), len(c.v) >= 7
    low = int(np.argmin(level))
    least = math.log(1.03 if smooth else 1.10)
    if level[-1] - level[low] < max(least, 3 * c.vsigma):
        return None
    width = max(5, len(c.x) // 10)
    end = max(width, int(np.sum(c.done <= c.vdone[low] + 1e-9)))
    if c.drop(c.third(2), c.x[end - width : end], 4, 0.05):
        return None  # training rose too: that is not learning by heart
    near = range(max(0, low - 1), min(len(c.v), low + 2)) if smooth else [low]
    best = min(near, key=lambda i: float(c.v[i]))
    step = int(c.vstep[best])
    what = (
        f"since update {step} the validation loss rose from {_nats(c.v[best])} to {_nats(level[-1])}, "
        "while the training loss did not rise"
    )
    advice = (
        f"train.steps={step} gives about the same in less time; more rows or adapter.dropout may give a better one"
        if step
        else "lower train.lr, or add rows or adapter.dropout"
    )
    return Diagnosis("overfitting", what, step, advice)


def _worse(c: Curve) -> Diagnosis | None:
    start, last = c.x[:5], c.third(2)
    if c.drop(last, start, 4, math.log(1.5)):
        what = f"the training loss began at {_nats(np.median(start))} and ended at {_nats(np.median(last))}"
        return Diagnosis("unstable", what, None, SLOWER)
    return None


def _learned_nothing(c: Curve) -> Diagnosis | None:
    last = c.third(2)
    starts = [c.x[:n] for n in (5, 10, len(c.x) // 10, len(c.x) // 3)]
    if any(c.drop(start, last, 4, 0.05) for start in starts):
        return None
    if len(c.v) > 1 and c.v[0] - np.min(c.v[-2:]) > max(0.03, 3 * c.vsigma):
        return None
    first = c.x[: max(5, len(c.x) // 20)]
    still = len(c.v) > 1 and c.vdone[0] < 0.7 and np.ptp(c.v) < 0.002  # weights that learn wobble by more
    hidden = float(np.median(first) - np.median(last)) + 2 * c.error(first, last)
    if hidden > math.log(2) and not still:
        what = f"the loss varies so much between updates that {len(c.x)} of them do not show whether it falls"
        more = "lower validation.every" if len(c.v) else "give data.valid"
        return Diagnosis("too short to tell", what, None, f"train longer, raise train.accumulate, or {more}")
    what = (
        f"the loss does not fall: training {_nats(np.median(c.third(0)))} in the first third of the run, "
        f"{_nats(np.median(last))} in the last"
    )
    advice = "raise train.lr threefold; if the first loss was low already, the data hold nothing new for this model"
    return Diagnosis("not learning", what, None, advice)


def _learns_by_heart(c: Curve) -> Diagnosis | None:
    since = c.vdone >= 1 / 3
    v, last = c.v[since], c.third(2)
    if len(v) < 3 or np.median(v) < math.log(0.1) or _falls(c):
        return None
    if not c.drop(c.third(1), last, 3, math.log(1.15)) or np.median(last) > np.median(v[-3:]) + math.log(0.75):
        return None
    what = (
        f"the validation loss stays at {_nats(np.median(v))} while training falls to {_nats(np.median(last))}: "
        "rows are learned by heart, because labels are noisy or contradict each other, or because hard rows repeat"
    )
    step = int(c.vstep[since][0])
    return Diagnosis(
        "noisy labels possible", what, step, "read a sample of data.train's answers; else train fewer epochs"
    )


def _falls(c: Curve) -> bool:
    """Whether the loss still falls in the last third of the way."""
    before = c.v[c.vdone <= 2 / 3]
    if len(c.v) < 4 or not len(before):
        return c.drop(c.third(1), c.third(2), 3, math.log(1.03))
    return bool(np.min(before[-2:]) - np.median(c.v[-2:]) > max(math.log(1.02), 2 * c.vsigma))


def _still_falls(c: Curve) -> Diagnosis | None:
    if not _falls(c):
        return None
    name, end = ("validation", c.v[-2:]) if len(c.v) > 3 else ("training", c.third(2))
    what = f"the {name} loss is still falling, to {_nats(np.median(end))} at the end"
    unseen = "" if len(c.v) > 3 else "; give data.valid, for overfitting cannot be seen without it"
    return Diagnosis("still learning", what, None, f"train longer: raise train.epochs or train.steps{unseen}")


def _converged(c: Curve) -> Diagnosis:
    end = f"validation {_nats(np.median(c.v[-2:]))}" if len(c.v) else f"training {_nats(np.median(c.third(2)))}"
    return Diagnosis("converged", f"the loss fell, then stayed: {end} at the end", None, "done; more would add little")


def _nats(log: float) -> str:
    return f"{math.exp(log):.3g}"
