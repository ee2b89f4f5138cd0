"""Confidence against correctness, against scikit-learn, formulas and simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.auroc import auroc
from mlx_gemma.evaluate.calibration import calibrate, confidence
from mlx_gemma.evaluate.calibration_error import CalibrationError, calibration_error
from mlx_gemma.evaluate.reliability import plot_reliability

TENTHS = np.linspace(0, 1, 11)


def answers(count: int, seed: int, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences of a mostly sure model, which is right with confidence ** power."""
    rng = np.random.default_rng(seed)
    c = rng.beta(5, 1.5, count)
    return c, (rng.random(count) < c**power).astype(float)


def error(c: np.ndarray, y: np.ndarray, index: np.ndarray | None = None) -> CalibrationError:
    return calibration_error(c, y, TENTHS, np.arange(len(c)) if index is None else index, level=0.95, seed=0)


def test_scores_are_scikit_learns() -> None:
    for seed in range(8):
        c, y = answers(100, seed, 1.5)
        c = np.round(c, 2) if seed % 2 else c  # with ties, and on bin edges
        found = calibrate(c, y)
        assert found.brier.value == pytest.approx(brier_score_loss(y, c))
        assert found.auroc is not None
        assert found.auroc.value == pytest.approx(roc_auc_score(y, c))
        right, stated = calibration_curve(y, c, n_bins=10)
        bins = found.equal_width.bins
        assert [b.correct.value for b in bins] == pytest.approx(right)
        assert [b.confidence for b in bins] == pytest.approx(stated)
        share = np.array([b.correct.total for b in bins]) / 100
        assert found.equal_width.value == pytest.approx(float(share @ np.abs(right - stated)))


def test_bins_of_equal_mass() -> None:
    c, y = answers(134, 1)
    assert {b.correct.total for b in calibrate(c, y).equal_mass.bins} == {13, 14}
    tied = calibrate([0.2] * 5 + [0.9] * 95, [False] * 5 + [True] * 95).equal_mass.bins
    assert sum(b.correct.total for b in tied) == 100
    assert len(tied) <= 2


def test_murphys_decomposition() -> None:
    """By hand: 0.2 four times, one right, and 0.8 six times, three right; base rate 0.4."""
    found = calibrate([0.2] * 4 + [0.8] * 6, [True] + [False] * 3 + [True] * 3 + [False] * 3).brier
    assert found.reliability == pytest.approx(0.4 * 0.05**2 + 0.6 * 0.3**2)
    assert found.resolution == pytest.approx(0.4 * 0.15**2 + 0.6 * 0.1**2)
    assert found.uncertainty == pytest.approx(0.24)
    assert found.within == pytest.approx(0, abs=1e-12)
    assert found.value == pytest.approx(found.reliability - found.resolution + found.uncertainty)
    c, y = answers(100, 2)
    spread = calibrate(c, y)
    # Within-bin variance of the confidences, less twice their covariance with being right.
    which = np.searchsorted(TENTHS[1:-1], c)
    within = sum(np.sum((c[k] - c[k].mean()) ** 2 - 2 * (c[k] - c[k].mean()) * (y[k] - y[k].mean()))
                 for k in (which == b for b in np.unique(which))) / 100  # fmt: skip
    assert spread.brier.within == pytest.approx(within)


def test_calibration_error_covers() -> None:
    """80 suites of 69 answers each, of a calibrated and of an overconfident model (true error by a large sample).

    At least 95 % less 3 standard errors hold the true error; of calibrated models few are called miscalibrated.
    """
    big, _ = answers(400_000, 99, 2.0)
    which = np.searchsorted(TENTHS[1:-1], big)
    true = float(np.abs(np.bincount(which, weights=big - big**2.0)).sum() / len(big))
    least = 0.95 - 3 * math.sqrt(0.95 * 0.05 / 80)
    for power, truth in ((1.0, 0.0), (2.0, true)):
        found = [error(*answers(69, seed, power)) for seed in range(80)]
        assert np.mean([e.interval[0] <= truth <= e.interval[1] for e in found]) >= least, power
        biased = np.mean([e.value for e in found]) - truth
        left = np.mean([e.debiased for e in found]) - truth
        assert abs(left) < biased
        if truth == 0:
            assert np.mean([e.if_calibrated for e in found]) == pytest.approx(biased, abs=0.01)
        else:
            assert np.mean([e.interval[0] > 0 for e in found]) > 0.5  # and it does find something


def test_the_excess_is_that_of_a_normal_accuracy() -> None:
    """One bin of 50, confidence 0.8, 40 right: the expectation of |N(0, sd)| is sd sqrt(2 / pi)."""
    found = error(np.full(50, 0.8), np.r_[np.ones(41), np.zeros(9)])
    sd, gap = math.sqrt(0.82 * 0.18 / 50), 0.02
    drawn = np.abs(np.random.default_rng(0).normal(gap, sd, 400_000)).mean()
    assert found.value == pytest.approx(gap)
    assert found.debiased == pytest.approx(max(0.0, gap - (drawn - gap)), abs=3e-4)


def test_clusters_widen_what_is_known() -> None:
    c, y = answers(60, 3, 2.0)
    alone = calibrate(c, y)
    tripled = calibrate(np.tile(c, 3), np.tile(y, 3), clusters=list(range(60)) * 3)
    assert tripled.equal_width.value == pytest.approx(alone.equal_width.value)
    assert tripled.equal_width.interval == pytest.approx(alone.equal_width.interval, abs=0.02)
    assert tripled.equal_width.if_calibrated == pytest.approx(alone.equal_width.if_calibrated, abs=0.01)
    assert tripled.brier.interval == pytest.approx(alone.brier.interval, abs=0.01)
    assert alone.auroc is not None
    assert tripled.auroc is not None
    assert tripled.auroc.interval == pytest.approx(alone.auroc.interval)


def delong(s: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """DeLong's interval from the placement values (1988, Biometrics 44:837-845)."""
    right, wrong = s[y == 1], s[y == 0]
    above = (right[:, None] > wrong) + 0.5 * (right[:, None] == wrong)
    sd = math.sqrt(above.mean(1).var(ddof=1) / len(right) + above.mean(0).var(ddof=1) / len(wrong))
    return above.mean() - 1.96 * sd, above.mean() + 1.96 * sd


def test_auroc_interval_is_near_delongs_where_that_holds() -> None:
    rng = np.random.default_rng(10)
    y = np.r_[np.ones(300), np.zeros(300)]
    for shift in (0.0, 0.7, 1.2):
        s = rng.normal(size=600) + shift * y
        found = auroc(s, y)
        assert found is not None
        assert found.interval == pytest.approx(delong(s, y), abs=0.012)


def test_auroc_interval_covers_with_few_wrong_answers() -> None:
    """400 suites with 65 right and 4 wrong answers, scores a standard deviation apart; at least 95 % less 3 se."""
    rng, true = np.random.default_rng(11), 0.76025  # Phi(1 / sqrt 2)
    y = np.r_[np.ones(65), np.zeros(4)]
    found = [auroc(rng.normal(size=69) + y, y) for _ in range(400)]
    assert np.mean([f is not None and f.interval[0] <= true <= f.interval[1] for f in found]) >= 0.917


def test_auroc_of_a_perfect_ranking_is_no_certainty() -> None:
    found = auroc([-0.1, -0.2, -0.3, -2.0], [True, True, True, False])  # log-probabilities, no probabilities
    assert found is not None
    assert found.value == found.interval[1] == 1
    assert found.interval[0] < 0.7
    assert str(found).startswith("1.000 (0.")
    worst = auroc([1, 0], [False, True])
    assert worst is not None
    assert worst.value == worst.interval[0] == 0


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("count", [1, 5])
def test_all_right_all_wrong_and_one(right: bool, count: int) -> None:
    found = calibrate([0.9] * count, [right] * count)
    off = 0.1 if right else 0.9
    assert found.auroc is None
    assert found.equal_width.value == found.equal_width.debiased == pytest.approx(off)
    for value, (low, high) in (
        (off, found.equal_width.interval),
        (off, found.equal_mass.interval),
        (off**2, found.brier.interval),
    ):
        assert low <= value + 1e-12
        assert value - 1e-12 <= high
        assert high - low > 0.2  # five answers of one kind do not show an accuracy of exactly that
    assert "AUROC not defined" in str(found)
    assert "\n" not in str(found)


def test_constant_confidence() -> None:
    found = calibrate([0.5] * 6, [True, False] * 3)
    assert found.equal_width.value == 0
    assert found.equal_width.interval[1] > 0.2
    assert found.auroc is not None
    assert found.auroc.value == 0.5
    assert len(found.equal_mass.bins) == 1
    one_prompt = calibrate([0.5, 0.7], [True, False], clusters=["a", "a"])
    assert one_prompt.equal_width.interval == one_prompt.brier.interval == (0.0, 1.0)


@pytest.mark.parametrize(
    ("confidences", "correct", "said"),
    [
        ([], [], "no answers to calibrate on"),
        ([0.5, float("nan")], [True, False], "a confidence is not a finite number"),
        ([0.5], [True, False], "1 confidences for 2 answers"),
        ([-0.2], [True], "a confidence is not between 0 and 1"),
        ([0.2], [0.5], "an answer is neither correct nor wrong"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_one_line(confidences: list, correct: list, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        calibrate(confidences, correct)
    assert "\n" not in str(raised.value)


def test_confidence_of_an_answer() -> None:
    assert confidence([math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)
    assert confidence([1e-7]) == 1.0  # rounding
    assert confidence([-math.inf]) == 0.0
    for wrong in ([], [0.1], [math.nan]):
        with pytest.raises(UserError):
            confidence(wrong)


def test_the_same_numbers_again() -> None:
    c, y = answers(50, 4)
    assert calibrate(c, y) == calibrate(c, y)


def test_the_picture(tmp_path: Path) -> None:
    found = {"base": calibrate(*answers(60, 5, 2.0)), "adapter": calibrate([0.9], [True])}
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        plot_reliability(found, tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert data.startswith(start)
        plot_reliability(found, tmp_path / name)
        assert (tmp_path / name).read_bytes() == data
    with pytest.raises(UserError, match="PNG or SVG"):
        plot_reliability(found, tmp_path / "a.pdf")
    with pytest.raises(UserError, match="0 models"):
        plot_reliability({}, tmp_path / "a.png")
