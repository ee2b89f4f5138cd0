"""Scores by hand and by scikit-learn; risk-coverage and isotonic confidence."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import empirical_covariance
from sklearn.decomposition import PCA
from sklearn.isotonic import IsotonicRegression

from mlx_gemma.gate.coverage import isotonic, risk_coverage
from mlx_gemma.gate.scores import EXPLAINED, NAMES, NEIGHBOURS, fit_pca, pca_distance, score_all


def unit_rows(rows: int, dimension: int, seed: int = 0) -> np.ndarray:
    """Unit vectors whose later coordinates vary less."""
    e = np.random.default_rng(seed).normal(size=(rows, dimension)) * np.linspace(1, 0.05, dimension) + 0.3
    return (e / np.linalg.norm(e, axis=1, keepdims=True)).astype(np.float32)


def test_scores_by_hand() -> None:
    s = np.linspace(1.0, 0.05, NEIGHBOURS)
    e = unit_rows(50, 8)
    found = score_all(s, e[0], fit_pca(e))
    assert tuple(found) == NAMES
    assert found["nearest"] == 1.0
    assert found["mean_k"] == pytest.approx(1 - 2 * 0.05)
    assert found["gap"] == pytest.approx(0.05)
    assert found["density"] == pytest.approx(-np.sqrt(2 - 2 * 0.05))


def test_a_batch_is_its_queries() -> None:
    e = unit_rows(60, 8)
    queries = unit_rows(5, 8, seed=1)
    pca = fit_pca(e)
    s = -np.sort(-(queries @ e.T), axis=1)[:, :NEIGHBOURS]
    together = score_all(s, queries, pca)
    for i in range(5):
        alone = score_all(s[i], queries[i], pca)
        for name in NAMES:
            assert together[name][i] == pytest.approx(float(alone[name]), rel=1e-5)


def test_pca_is_scikit_learns() -> None:
    e = unit_rows(400, 12).astype(np.float64)
    pca, theirs = fit_pca(e), PCA(EXPLAINED, svd_solver="full").fit(e)
    assert len(pca["pca_components"]) == theirs.n_components_
    scale = 399 / 400  # they divide by rows - 1
    assert pca["pca_variances"] == pytest.approx(theirs.explained_variance_ * scale, rel=1e-4)
    assert pca["pca_residual"][0] == pytest.approx(theirs.noise_variance_ * scale, rel=1e-4)
    # The distance is Mahalanobis's under the covariance of the model.
    centred = e[:20] - theirs.mean_
    c = pca["pca_components"].astype(float)
    covariance = c.T @ np.diag(pca["pca_variances"] - pca["pca_residual"]) @ c + pca["pca_residual"] * np.eye(12)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", centred, np.linalg.inv(covariance), centred))
    assert pca_distance(e[:20], pca) == pytest.approx(expected, rel=1e-3)
    assert empirical_covariance(e).trace() == pytest.approx(
        pca["pca_variances"].sum() + pca["pca_residual"][0] * (12 - len(c)), rel=1e-4
    )


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_small_knowledge_bases_have_scores(rows: int) -> None:
    e = unit_rows(rows, 8)
    pca = fit_pca(e)
    far = unit_rows(1, 8, seed=9)[0]
    at_home, away = (score_all(-np.sort(-(e @ q)), q, pca) for q in (e[0], far))
    for name in ("nearest", "mean_k", "density", "pca"):
        assert np.isfinite(at_home[name])
        if name == "nearest" or rows == 1:
            assert at_home[name] > away[name]
    if rows == 1:
        assert at_home["gap"] == away["gap"] == 0.0


def test_duplicate_rows_close_the_gap() -> None:
    e = np.repeat(unit_rows(10, 8), 2, axis=0)
    found = score_all(-np.sort(-(e @ e[0])), e[0], fit_pca(e))
    assert found["gap"] == 0.0
    assert found["nearest"] == pytest.approx(1.0, abs=1e-6)


def test_risk_coverage_by_hand() -> None:
    curve = risk_coverage(np.array([0.9, 0.8, 0.8, 0.1]), np.array([False, True, False, True]))
    assert curve.threshold.tolist() == [0.9, 0.8, 0.1]
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 1 / 3, 0.5])
    # Of the two at 0.8 either may come first: half a bad one of two.
    assert curve.area == pytest.approx((0 + 0.5 / 2 + 1 / 3 + 0.5) / 4)


def test_a_score_that_knows_nothing_has_the_base_rates_area() -> None:
    bad = np.array([True, False, False, True, False])
    assert risk_coverage(np.zeros(5), bad).area == pytest.approx(0.4)


def test_isotonic_is_scikit_learns_but_never_sure() -> None:
    rng = np.random.default_rng(0)
    s = np.round(rng.random(300), 2)
    good, weights = rng.random(300) < s, rng.choice([0.5, 1.0], 300)
    at, chance = map(np.array, zip(*isotonic(s, good, weights), strict=True))
    assert np.all(np.diff(at) > 0)
    assert np.all(np.diff(chance) >= 0)
    theirs = IsotonicRegression().fit(s, good, weights)
    assert chance == pytest.approx(theirs.predict(at), abs=0.5 / 2)  # a block of weight 1 moves by a quarter
    inner = np.linspace(0.2, 0.8, 50)
    assert np.abs(np.interp(inner, at, chance) - theirs.predict(inner)).mean() < 0.03
    ((_, only),) = isotonic(np.array([0.5]), np.array([True]), np.ones(1))
    assert only == 0.75
