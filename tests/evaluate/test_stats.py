"""Rates and paired comparisons, against statsmodels, scipy and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test
from scipy.stats import bootstrap as scipy_bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.paired import Comparison, compare, compare_values, holm
from mlx_gemma.evaluate.power import mcnemar_power, smallest_difference
from mlx_gemma.evaluate.resample import cluster_index, cluster_sums, expanded, mean_interval, sign_flip_p
from mlx_gemma.evaluate.stats import Rate, cells, newcombe, wilson


def outcomes(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + first) + [False] * (second + neither)
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    return a, b


def random_tables(count: int) -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(7)
    return [tuple(rng.multinomial(rng.integers(1, 150), rng.dirichlet([1] * 4)).tolist()) for _ in range(count)]


def test_wilson_is_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        total = int(rng.integers(1, 300))
        count, level = int(rng.integers(0, total + 1)), float(rng.choice([0.8, 0.95, 0.99]))
        theirs = proportion_confint(count, total, 1 - level, method="wilson")
        assert wilson(count, total, level) == pytest.approx(theirs, abs=1e-12)
    assert Rate(3, 20).interval == wilson(3, 20)
    assert math.isnan(Rate(0, 0).value)


def test_cells_are_descriptive_below_twenty_items() -> None:
    found = cells(["typos"] * 3 + ["plain"] * 20 + ["typos"], [True, False, False] + [False] * 20 + [True])
    assert [c.name for c in found] == ["typos", "plain"]
    assert [(c.rate.count, c.rate.total, c.descriptive) for c in found] == [(2, 4, True), (0, 20, False)]
    assert str(found[0]) == "typos: 2/4 50.0% (15.0%-85.0%), descriptive only"
    with pytest.raises(ValueError, match="zip"):
        cells(["a"], [True, False])


def test_mcnemar_is_statsmodels() -> None:
    for table in random_tables(60):
        found = compare(*outcomes(*table))
        theirs = mcnemar([table[:2], table[2:]], exact=True).pvalue
        assert found.p == pytest.approx(min(1.0, theirs), rel=1e-9)
        assert (found.both, found.first, found.second, found.neither) == table
        assert found.effective == found.total == sum(table)
        assert found.difference == pytest.approx(found.rates[1].value - found.rates[0].value, abs=1e-12)


def test_newcombe_is_the_published_one() -> None:
    """Bentur and others 2009 in Fagerland, Lydersen and Laake (2014), and a table of Newcombe (1998)."""
    assert newcombe(1, 7, 1, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert newcombe(36, 2, 12, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_the_two_intervals_agree_where_there_is_much_data() -> None:
    for table in ((200, 60, 30, 110), (20, 100, 90, 190)):
        found = compare(*outcomes(*table))
        assert found.interval == pytest.approx(found.newcombe, abs=0.006)


def test_no_differing_item_is_no_certainty() -> None:
    found = compare([False] * 69, [False] * 69)
    assert found.interval == found.newcombe == pytest.approx((-0.0527, 0.0527), abs=1e-4)
    assert found.verdict == "cannot tell"
    assert found.smallest == pytest.approx(0.112, abs=1e-3)
    all_mended = compare([True] * 8, [False] * 8)
    assert all_mended.verdict == "better"
    assert all_mended.interval[1] > -0.9
    grouped = compare([False] * 69, [False] * 69, clusters=[i // 3 for i in range(69)])
    assert grouped.effective == 23
    assert grouped.interval[1] > 2 * found.interval[1]


def test_the_sign_flip_test_over_clusters_is_exact() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        sums = rng.integers(-3, 4, 9).astype(float)
        flips = [abs(sum(s * x for s, x in zip(signs, sums, strict=True)))
                 for signs in itertools.product((-1, 1), repeat=9)]  # fmt: skip
        assert sign_flip_p(sums) == pytest.approx(np.mean(np.array(flips) >= abs(sums.sum())), rel=1e-9)


def test_the_sign_flip_test_of_numbers_is_scipys() -> None:
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.4, 0.8):
        a, b = rng.normal(size=10), rng.normal(size=10) + shift
        exact = permutation_test((a, b), lambda x, y: np.mean(y - x), permutation_type="samples").pvalue
        assert compare_values(a, b).p == pytest.approx(exact, abs=0.02)  # 4,999 draws: 3 standard errors


def test_the_interval_is_scipys_bootstrap_at_wider_quantiles() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=40)
    theirs = scipy_bootstrap((values,), np.mean, n_resamples=20_000, rng=np.random.default_rng(0))
    edge = expanded(0.95, 40)
    assert 0.015 < edge < 0.025
    want = np.quantile(theirs.bootstrap_distribution, [edge, 1 - edge])
    found = mean_interval(values, cluster_index(None, 40), level=0.95, seed=0)
    assert found == pytest.approx(want, abs=0.05 * np.ptp(want))


@pytest.mark.parametrize("clustered", [False, True])
def test_the_interval_covers(clustered: bool) -> None:
    """300 suites of 69 items, 20 % mended and 5 % spoilt; where clustered, three of a cluster are mostly alike.

    At least 95 % less 3.5 standard errors (simulated with more: 93 to 96 %).
    """
    rng, held = np.random.default_rng(4), 0
    for _ in range(300):
        if clustered:
            change = np.repeat(rng.choice([-1.0, 1.0, 0.0], 23, p=[0.2, 0.05, 0.75]), 3)
            other = rng.random(69) < 0.4
            change[other] = rng.choice([-1.0, 1.0, 0.0], other.sum(), p=[0.2, 0.05, 0.75])
        else:
            change = rng.choice([-1.0, 1.0, 0.0], 69, p=[0.2, 0.05, 0.75])
        index = np.repeat(np.arange(23), 3) if clustered else np.arange(69)
        low, high = mean_interval(change, index, level=0.95, seed=0)
        held += low <= -0.15 <= high
    assert held / 300 >= 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / 300)


@pytest.mark.parametrize("size", [1, 3])
def test_false_alarms_are_at_most_five_percent(size: int) -> None:
    """3,000 comparisons without a difference, items of a cluster changing together: p <= 0.05 in 5 % plus 3 se."""
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(3_000):
        cluster = rng.choice([-1, 1, 0], 60 // size, p=[0.2, 0.2, 0.6])
        change = np.where(rng.random(60) < 0.3, rng.choice([-1, 1, 0], 60, p=[0.2, 0.2, 0.6]), np.repeat(cluster, size))
        alarms += sign_flip_p(cluster_sums(change * 1.0, np.arange(60) // size)) <= 0.05
    assert 0.01 < alarms / 3_000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3_000)


def test_ignoring_clusters_would_raise_false_alarms() -> None:
    """That clusters matter is seen too: the same items as if independent are "better" or "worse" far too often."""
    rng = np.random.default_rng(6)
    changes = np.repeat(rng.choice([-1.0, 1.0, 0.0], (500, 20), p=[0.2, 0.2, 0.6]), 3, axis=1)
    naive = np.mean([sign_flip_p(change) <= 0.05 for change in changes])
    right = np.mean([sign_flip_p(cluster_sums(change, np.arange(60) // 3)) <= 0.05 for change in changes])
    assert right <= 0.08
    assert naive >= 0.15


def test_verdicts_and_their_lines() -> None:
    fewer = compare(*outcomes(14, 20, 2, 33))
    assert fewer.verdict == "better"
    assert str(fewer).startswith("better: 34/69 49.3% -> 16/69 23.2%, -26.1 points (-")
    assert "20 of 22 differing items for it, p = 0.00012" in str(fewer)
    more = compare(*outcomes(14, 20, 2, 33), better="higher")
    assert more.verdict == "worse"
    assert "2 of 22 differing items for it" in str(more)
    few = compare(*outcomes(0, 5, 0, 64))  # p = 0.0625: five items, all one way, are not enough
    assert few.verdict == "cannot tell"
    assert str(few).endswith("smallest difference that would have shown: 11.2 points")
    assert compare(*outcomes(0, 6, 0, 63)).verdict == "better"
    assert compare(*outcomes(0, 6, 0, 63), clusters=[0] * 6 + list(range(1, 64))).verdict == "cannot tell"
    one = compare([True], [False])
    assert (one.verdict, one.p, one.smallest) == ("cannot tell", 1.0, None)
    assert "no difference could have been shown" in str(one)
    assert all("\n" not in str(c) for c in (fewer, more, few, one))
    assert compare(*outcomes(14, 20, 2, 33)) == fewer


def test_the_smallest_difference_has_power_four_fifths() -> None:
    """Drawn 20,000 times at that difference, the test finds it in 80 % (standard error 0.3 %)."""
    rng = np.random.default_rng(8)
    for items, discordance in ((69, 0.25), (69, 0.02), (200, 0.1)):
        smallest = smallest_difference(items, discordance)
        assert smallest is not None
        both_ways = max(discordance, smallest)
        chances = [(both_ways + smallest) / 2, (both_ways - smallest) / 2, 1 - both_ways]
        drawn, counts = np.unique(rng.multinomial(items, chances, 20_000), axis=0, return_counts=True)
        p = np.array([binomtest(a, a + b).pvalue if a + b else 1.0 for a, b, _ in drawn])
        assert counts[(p <= 0.05) & (drawn[:, 0] > drawn[:, 1])].sum() / 20_000 == pytest.approx(0.8, abs=0.01)


def test_the_smallest_difference_nears_connors_formula() -> None:
    items, discordance, z, z_power = 5_000, 0.2, 1.959964, 0.841621
    found = smallest_difference(items, discordance)
    assert found is not None
    needed = (z * math.sqrt(discordance) + z_power * math.sqrt(discordance - found**2)) ** 2 / found**2
    assert needed == pytest.approx(items, rel=0.06)  # the exact test wants some more items
    assert smallest_difference(5, 1.0) is None
    assert mcnemar_power(69, 0.3, 0.2, 0.99) < mcnemar_power(69, 0.3, 0.2, 0.95)


def test_clusters_cost_items() -> None:
    a, b = outcomes(14, 18, 3, 33)
    alone = compare(a, b)
    tripled = compare(a * 3, b * 3, clusters=list(range(68)) * 3)
    assert tripled.effective == pytest.approx(68)
    assert tripled.p == pytest.approx(alone.p)
    assert tripled.smallest == alone.smallest
    assert tripled.interval == pytest.approx(alone.interval, abs=0.02)
    assert tripled.newcombe == pytest.approx(alone.newcombe)


def test_holm_is_statsmodels() -> None:
    tables = random_tables(8)
    found = {str(n): compare(*outcomes(*table)) for n, table in enumerate(tables)}
    corrected = holm(found)
    assert list(corrected) == list(found)
    theirs = multipletests([c.p for c in found.values()], method="holm")[1]
    assert [c.p_holm for c in corrected.values()] == pytest.approx(theirs, rel=1e-9)
    near = compare(*outcomes(0, 6, 0, 63))  # p = 0.03: found alone, not as one of two
    pair = holm({"a": near, "b": compare(*outcomes(5, 1, 1, 62))})
    assert isinstance(pair["a"], Comparison)
    assert (near.verdict, pair["a"].verdict) == ("better", "cannot tell")
    assert "p = 0.031 (p = 0.062 as one of 2)" in str(pair["a"])
    assert (pair["a"].smallest or 0) > (near.smallest or 1)
    assert holm({}) == {}


def test_numbers_on_the_same_items() -> None:
    rng = np.random.default_rng(9)
    before = rng.normal(-2, 1, 80)
    after = before + rng.normal(0.2, 0.3, 80)
    found = compare_values(before, after)
    assert found.verdict == "better"
    assert found.difference == pytest.approx(np.mean(after - before))
    assert found.interval[0] < found.difference < found.interval[1]
    assert compare_values(before, after, better="lower").verdict == "worse"
    assert compare_values(before, before).verdict == "cannot tell"
    assert compare_values(before, after, clusters=["all"] * 80).interval == (-math.inf, math.inf)
    assert str(found).startswith("better: mean ")
    assert str(found).endswith("on 80 items, p = 0.0002")  # the smallest that 4,999 draws can give


@pytest.mark.parametrize(
    ("first", "second", "clusters", "said"),
    [
        ([], [], None, "no items to compare"),
        ([True], [True, False], None, "1 outcomes against 2"),
        ([0.5], [1.0], None, "an outcome is neither true nor false"),
        ([float("nan")], [1.0], None, "a value is not a finite number"),
        ([True, False], [True, True], ["a"], "1 clusters for 2 items"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(first: list, second: list, clusters: list, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        compare(first, second, clusters=clusters)
    assert "\n" not in str(raised.value)
