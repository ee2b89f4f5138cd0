"""From outcomes to thresholds: a third of the queries chooses the score, the others bear the threshold out.

    fit(outcomes, alpha=0.1, delta=0.1, seed=0) -> Fit

The score is the one of the lowest area under the risk-coverage curve on the first part. No model runs here, so that it
takes milliseconds to ask what another alpha would do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.auroc import Auroc, auroc
from mlx_gemma.gate import risk, scores
from mlx_gemma.gate.coverage import Bools, Curve, Floats, Knots, isotonic, risk_coverage
from mlx_gemma.gate.outcomes import Outcome, bad_of, score_of
from mlx_gemma.gate.risk import Bound

FOLDS = 5  # of groups, to see whether the confidence is right


@dataclass(frozen=True)
class Compared:
    """How one score does.

    Attributes:
        chose: area under the risk-coverage curve of the part that chooses, by which a score is picked.
        curve: of the other part.
        auroc: of a good output of the specialist, on the other part; None where all outputs are alike.
        bound: the threshold this score would have.
    """

    name: str
    chose: float
    curve: Curve
    auroc: Auroc | None
    bound: Bound


@dataclass(frozen=True)
class Fit:
    """Thresholds, and all that was compared.

    Attributes:
        score: the chosen one.
        first: which queries chose, (queries,); the others tested.
        tested: index of the tested queries, one a group.
        accept, out: see risk.py.
        knots: (score, chance of a good output), see coverage.isotonic; of all queries.
        crossed: chance of each query's output being good, (queries,), by the isotonic regression on the other folds.
        compared: by name.
        reason: one sentence.
    """

    score: str
    first: Bools
    tested: NDArray[np.intp]
    accept: Bound
    out: Bound
    knots: Knots
    crossed: Floats
    compared: Mapping[str, Compared]
    reason: str

    @property
    def counts(self) -> dict[str, float]:
        """For gate.json."""
        a = self.accept
        return {
            "queries": len(self.first),
            "tested": a.tested,
            "accepted": a.accepted,
            "bad": a.bad,
            "upper": a.limit,
            "coverage": a.accepted / a.tested if a.threshold is not None else 0.0,
        }


def fit(outcomes: Sequence[Outcome], *, alpha: float, delta: float, seed: int) -> Fit:
    """Choose a score, and thresholds for it.

    Args:
        outcomes: all with the same scores.
        seed: of the split, and of which query of a group is tested.

    Raises:
        UserError: alpha or delta is no probability; fewer than two groups; a score that is not finite.
    """
    risk.check_levels(alpha, delta)
    groups = [o.group for o in outcomes]
    if len(set(groups)) < 2:
        raise UserError(f"{len(set(groups))} groups of calibration queries", fix="give more queries, 100 at the least")
    first = risk.split(groups, [f"{o.suite} {o.type}" for o in outcomes], seed)
    if not first.any() or first.all():
        raise UserError("too few calibration queries to split", fix="give more queries, 100 at the least")
    chosen = risk.one_a_group(groups, seed)
    tested = chosen[~first[chosen]]
    bad = bad_of(outcomes)
    compared: dict[str, Compared] = {}
    for name in outcomes[0].scores:
        values = score_of(outcomes, name)
        if not np.isfinite(values).all():
            raise UserError(f"score {name} of query {outcomes[int(np.argmin(np.isfinite(values)))].id} is not finite")
        held = np.flatnonzero(~first)
        compared[name] = Compared(
            name=name,
            chose=risk_coverage(values[first], bad[first]).area,
            curve=risk_coverage(values[held], bad[held]),
            auroc=auroc(values[held].tolist(), (~bad[held]).tolist(), clusters=[groups[i] for i in held]),
            bound=risk.accept_threshold(
                (values[first], bad[first]), (values[tested], bad[tested]), alpha=alpha, delta=delta
            ),
        )
    best = min((c for c in compared.values() if c.name in scores.NAMES), key=lambda c: c.chose)
    values, accept = score_of(outcomes, best.name), best.bound
    out = risk.out_threshold(
        (values[first], bad[first]),
        (values[tested], bad[tested]),
        alpha=alpha,
        delta=delta,
        below=math.inf if accept.threshold is None else accept.threshold,
    )
    sizes = Counter(groups)
    weights = np.array([1 / sizes[g] for g in groups])
    return Fit(
        score=best.name,
        first=first,
        tested=tested,
        accept=accept,
        out=out,
        knots=isotonic(values, ~bad, weights),
        crossed=_crossed(values, ~bad, groups, weights, seed),
        compared=compared,
        reason=_reason(best.name, accept, alpha, delta),
    )


def _crossed(values: Floats, good: Bools, groups: Sequence[str], weights: Floats, seed: int) -> Floats:
    names = sorted(set(groups))
    places = np.random.default_rng(seed).permutation(len(names)) % min(FOLDS, len(names))
    of = dict(zip(names, places.tolist(), strict=True))
    fold = np.array([of[group] for group in groups])
    chances = np.zeros(len(values))
    for own in range(int(places.max()) + 1):
        rest = fold != own
        at, chance = zip(*isotonic(values[rest], good[rest], weights[rest]), strict=True)
        chances[~rest] = np.interp(values[~rest], at, chance)
    return chances


def _reason(score: str, bound: Bound, alpha: float, delta: float) -> str:
    claim = f"at most {alpha:.1%} bad outputs with confidence {1 - delta:.0%}"
    if bound.threshold is not None:
        return (
            f"{score} from {bound.threshold:.3f} on goes to the specialist: {claim}; of {bound.tested} test queries "
            f"{bound.accepted} are there, {bound.bad} of them bad"
        )
    least = risk.needed(alpha, delta)
    if bound.tested < least:
        return (
            f"everything goes to the base: {bound.tested} test queries cannot show {claim}; even with none bad it "
            f"takes {least}, and half as many again to choose (one a group)"
        )
    return (
        f"everything goes to the base: {claim} is not shown; where it was likeliest, {score} from {bound.start:.3f} "
        f"on, {bound.bad} of {bound.accepted} test queries are bad, and with none bad it takes {least}"
    )
