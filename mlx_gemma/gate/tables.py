"""What a calibrated gate does to its held-out queries, as tables: by route, by threshold, by alpha.

Everything is counted on the part of the queries that did not choose score and order; rates are of queries, also where
several are of one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_gemma.evaluate.stats import Rate
from mlx_gemma.gate import risk
from mlx_gemma.gate.calibrated import Calibrated
from mlx_gemma.gate.coverage import Bools
from mlx_gemma.gate.fit import Fit, fit
from mlx_gemma.gate.outcomes import Outcome, bad_of, score_of

STEPS = 20  # thresholds shown
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Routed:
    """Bad outputs over some queries, under each way to answer them.

    Attributes:
        sent: of the queries, those sent to the specialist.
        specialist, base: bad outputs on what is sent to it.
        gate, specialist_alone, base_alone: bad outputs on all queries.
        oracle: with the better of both for each query: the least that any gate could reach.
    """

    name: str
    sent: Rate
    specialist: Rate
    base: Rate
    gate: Rate
    specialist_alone: Rate
    base_alone: Rate
    oracle: Rate


@dataclass(frozen=True)
class Step:
    """Another threshold: the share it sends to the specialist, bad outputs there, and of all."""

    threshold: float
    sent: Rate
    specialist: Rate
    gate: Rate
    accepted: bool


def routed(outcomes: Sequence[Outcome], fitted: Fit, threshold: float | None) -> list[Routed]:
    """All held-out queries, then each suite's, then each suite's types where it has several."""
    held = [o for o, first in zip(outcomes, fitted.first, strict=True) if not first]
    found = [_routed("all", held, fitted.score, threshold)]
    for suite in dict.fromkeys(o.suite for o in held):
        own = [o for o in held if o.suite == suite]
        found.append(_routed(suite, own, fitted.score, threshold))
        types = list(dict.fromkeys(o.type for o in own))
        if len(types) > 1:
            found += [_routed(f"{suite}: {t}", [o for o in own if o.type == t], fitted.score, threshold) for t in types]
    return found


def _routed(name: str, queries: Sequence[Outcome], score: str, threshold: float | None) -> Routed:
    sent, bad = sent_of(queries, score, threshold), bad_of(queries)
    base = np.array([o.base_bad for o in queries], bool)
    return Routed(
        name,
        sent=_rate(sent),
        specialist=_rate(bad[sent]),
        base=_rate(base[~sent]),
        gate=_rate(np.where(sent, bad, base)),
        specialist_alone=_rate(bad),
        base_alone=_rate(base),
        oracle=_rate(bad & base),
    )


def sent_of(queries: Sequence[Outcome], score: str, threshold: float | None) -> Bools:
    """Which queries go to the specialist, (queries,)."""
    return np.zeros(len(queries), bool) if threshold is None else score_of(queries, score) >= threshold


def steps(outcomes: Sequence[Outcome], fitted: Fit) -> list[Step]:
    """What another threshold would do to the held-out queries, ascending; the chosen one is among them."""
    held = [o for o, first in zip(outcomes, fitted.first, strict=True) if not first]
    values, chosen = score_of(held, fitted.score), fitted.accept.threshold
    at = np.unique(np.quantile(values, np.linspace(0, 1, STEPS), method="lower"))
    at = np.unique(np.append(at, chosen)) if chosen is not None else at
    found = []
    for threshold in at.tolist():
        row = _routed("", held, fitted.score, threshold)
        found.append(Step(threshold, row.sent, row.specialist, row.gate, threshold == chosen))
    return found


def alphas(outcomes: Sequence[Outcome], calibrated: Calibrated) -> list[tuple[float, Fit, int]]:
    """Other rates with the same confidence and split: (alpha, fit, queries needed at the least)."""
    delta, seed = calibrated.delta, calibrated.seed
    return [
        (alpha, fit(outcomes, alpha=alpha, delta=delta, seed=seed), risk.needed(alpha, delta))
        for alpha in sorted({*ALPHAS, calibrated.alpha})
    ]


def _rate(of: Bools) -> Rate:
    return Rate(int(np.sum(of)), len(of))
