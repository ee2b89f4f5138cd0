"""The guarantee, on distributions whose true risk is known; and what is said where it cannot be given."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from gate_outcomes import outcomes
from scipy.stats import binom

from mlx_gemma.errors import UserError
from mlx_gemma.gate import risk
from mlx_gemma.gate.fit import fit
from mlx_gemma.gate.outcomes import Outcome

ALPHA, DELTA, RUNS = 0.1, 0.1, 300
MOST = int(binom.ppf(0.999, RUNS, DELTA))  # a right procedure has more failures in one of a thousand test runs

Chance = Callable[[np.ndarray], np.ndarray]
SHAPES: dict[str, Chance] = {
    "falling": lambda s: 1 / (1 + np.exp((s - 0.5) * 10)),
    "just above alpha everywhere": lambda s: np.full(len(s), 0.101),
    "a cliff beside alpha": lambda s: np.where(s > 0.5, 0.0999, 0.3),
    "worst at the top": lambda s: np.where(s > 0.9, 0.4, np.where(s > 0.3, 0.03, 0.9)),
}


def true_risk(chance: Chance, low: float, high: float = 2.0) -> float:
    """P(bad | low <= score < high) for scores that are uniform on 0 to 1."""
    inside = np.linspace(max(low, 0.0), min(high, 1.0), 20_001)
    return float(chance(inside).mean())


@pytest.mark.parametrize("shape", SHAPES)
def test_risk_is_at_most_alpha_in_1_minus_delta_of_runs(shape: str) -> None:
    chance, over, under = SHAPES[shape], 0, 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        s = rng.random(600)
        bad = rng.random(600) < chance(s)
        first, second = (s[:300], bad[:300]), (s[300:], bad[300:])
        accept = risk.accept_threshold(first, second, alpha=ALPHA, delta=DELTA).threshold
        over += accept is not None and true_risk(chance, accept) > ALPHA
        below = math.inf if accept is None else accept
        out = risk.out_threshold(first, second, alpha=ALPHA, delta=DELTA, below=below).threshold
        assert out is None or out <= below
        under += out is not None and any(
            true_risk(chance, low, high) <= ALPHA
            for low, high in pairwise(risk.stretches(s[:300], below))
            if high <= out
        )
    assert over <= MOST
    assert under <= MOST


def test_a_separating_score_keeps_nearly_all_good_queries() -> None:
    covered = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        s = rng.random(600)
        bad = rng.random(600) < np.where(s > 0.6, 0.01, 0.8)
        found = risk.accept_threshold((s[:300], bad[:300]), (s[300:], bad[300:]), alpha=ALPHA, delta=DELTA)
        assert found.threshold is not None
        assert found.limit <= ALPHA
        covered.append(1 - found.threshold)
    assert np.mean(covered) > 0.38  # of 0.4


def test_the_whole_procedure_with_groups_keeps_the_bound() -> None:
    """Score chosen out of five, split by type, groups of four; and the same queries as if they were independent."""
    over = over_naive = 0
    runs, most = 100, int(binom.ppf(0.999, 100, DELTA))
    for seed in range(runs):
        rows = outcomes(seed, 80, 4, rate=0.101)
        found = fit(rows, alpha=ALPHA, delta=DELTA, seed=seed)
        assert found.accept.tested == 80 - len({o.group for o, first in zip(rows, found.first, strict=True) if first})
        over += found.accept.threshold is not None
        alone = [Outcome(**{**vars(o), "group": o.id}) for o in rows]
        over_naive += fit(alone, alpha=ALPHA, delta=DELTA, seed=seed).accept.threshold is not None
    assert over <= most
    assert over_naive > most  # so the groups are what keeps it


def test_fit_finds_the_score_that_knows() -> None:
    found = fit(outcomes(1, 400, 2), alpha=ALPHA, delta=DELTA, seed=0)
    assert found.score == "mean_k"
    assert found.accept.threshold is not None
    assert 0.6 < found.accept.threshold < 0.95
    assert found.out.threshold is not None
    assert 0.2 < found.out.threshold <= found.accept.threshold
    best = found.compared["mean_k"].auroc
    assert best is not None
    assert best.value > 0.85
    again = fit(outcomes(1, 400, 2), alpha=ALPHA, delta=DELTA, seed=0)
    assert (again.accept, again.out, again.knots) == (found.accept, found.out, found.knots)
    assert "goes to the specialist: at most 10.0% bad outputs with confidence 90%" in found.reason


def test_what_cannot_be_shown_goes_to_the_base() -> None:
    few = fit(outcomes(0, 20, 1, rate=0.0), alpha=ALPHA, delta=DELTA, seed=0)
    assert few.accept.threshold is None
    assert "even with none bad it takes 22, and half as many again" in few.reason
    bad = fit(outcomes(0, 200, 1, rate=0.5), alpha=ALPHA, delta=DELTA, seed=0)
    assert bad.accept.threshold is None
    assert "everything goes to the base" in bad.reason
    assert bad.counts["coverage"] == 0
    good = fit(outcomes(0, 60, 1, rate=0.0), alpha=ALPHA, delta=DELTA, seed=0)
    assert good.accept.threshold is not None
    assert good.out.threshold is None


@pytest.mark.parametrize(("alpha", "delta", "count"), [(0.1, 0.1, 22), (0.05, 0.05, 59), (0.2, 0.1, 11)])
def test_needed(alpha: float, delta: float, count: int) -> None:
    assert risk.needed(alpha, delta) == count
    assert (1 - alpha) ** count <= delta < (1 - alpha) ** (count - 1)


def test_split_keeps_groups_and_types() -> None:
    groups = [f"g{i // 2}" for i in range(200)]
    types = ["in" if i < 60 else "out" for i in range(200)]
    first = risk.split(groups, types, 3)
    assert np.array_equal(first[::2], first[1::2])
    assert first[:60].sum() == 20
    assert first[60:].sum() in (46, 48)  # a third of 70 groups
    assert not np.array_equal(first, risk.split(groups, types, 4))
    one = risk.one_a_group(groups, 0)
    assert [groups[i] for i in one] == [f"g{i}" for i in range(100)]
    assert 30 < np.sum(one % 2) < 70


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, math.nan])
def test_levels_are_probabilities(alpha: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        fit(outcomes(0, 20, 1), alpha=alpha, delta=DELTA, seed=0)


def test_one_group_is_too_few() -> None:
    with pytest.raises(UserError, match="1 groups"):
        fit(outcomes(0, 1, 5), alpha=ALPHA, delta=DELTA, seed=0)
