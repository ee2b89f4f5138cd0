"""How much a query is like the knowledge base: five scores, higher is more alike.

    nearest    the largest cosine
    mean_k     mean of the K = 5 largest
    gap        the largest less the second: a single match, not a crowd. 0 where there is one row
    density    minus the distance to the 20th nearest row (of fewer rows: the last)
    pca        minus the distance from the knowledge base's mean, in the space of its principal components

None of them is a probability, and which ranks best depends on the data: `mlx-gemma gate calibrate` compares them.
Rows that are there twice make `gap` 0 and leave `nearest` as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

NAMES = ("nearest", "mean_k", "gap", "density", "pca")
K = 5
NEIGHBOURS = 20  # so many similarities the scores are made of; of a smaller knowledge base, one a row
EXPLAINED = 0.95  # share of the variance that the components hold
CHUNK = 65_536  # rows at once, in float64: 200 MB at 384 dimensions


def score_all(similarities: Floats, embeddings: Floats, pca: Mapping[str, Floats]) -> dict[str, Floats]:
    """All scores by name, each (...).

    Args:
        similarities: cosines to the nearest rows, (..., k), descending; k is NEIGHBOURS or the number of rows.
        embeddings: of the queries, L2-normalised, (..., dimension).
        pca: what `fit_pca` gave.
    """
    s = np.asarray(similarities, np.float64)
    return {
        "nearest": s[..., 0],
        "mean_k": s[..., :K].mean(axis=-1),
        "gap": s[..., 0] - s[..., 1] if s.shape[-1] > 1 else np.zeros(s.shape[:-1]),
        # The density of k nearest neighbours, k / (rows * volume(r)), falls with r alone (Loftsgaarden and Quesenberry
        # 1965; as a score for what is out of distribution: Sun et al. 2022, arXiv 2204.06507).
        "density": -np.sqrt(np.maximum(2 - 2 * s[..., -1], 0.0)),
        "pca": -pca_distance(embeddings, pca),
    }


def fit_pca(embeddings: Floats) -> dict[str, Floats]:
    """The principal components of a knowledge base, as float32 tensors for the index file.

    `pca_mean` (dimension,), `pca_components` (components, dimension), `pca_variances` (components,), and `pca_residual`
    (1,), the mean variance of the directions left out. As many components as hold EXPLAINED of the variance; none for
    one row. 0.25 s for 5,000 rows of 384 dimensions on one core, and then in proportion to the rows.

    Args:
        embeddings: (rows, dimension), at least one row.
    """
    rows, dimension = embeddings.shape
    mean, squares = np.zeros(dimension), np.zeros((dimension, dimension))
    for start in range(0, rows, CHUNK):
        mean += np.asarray(embeddings[start : start + CHUNK], np.float64).sum(axis=0) / rows
    for start in range(0, rows, CHUNK):
        centred = np.asarray(embeddings[start : start + CHUNK], np.float64) - mean
        squares += centred.T @ centred / rows
    variances, directions = np.linalg.eigh(squares)
    variances, directions = np.maximum(variances[::-1], 0.0), directions[:, ::-1]
    # Of unit vectors the variances add up to 1 at most. What is below this is rounding, or a handful of rows.
    floor = 0.01 / dimension
    enough = int(np.searchsorted(np.cumsum(variances), EXPLAINED * variances.sum())) + 1
    kept = min(enough, int(np.sum(variances > floor)), dimension - 1)
    residual = max(float(variances[kept:].mean()), floor)
    return {
        "pca_mean": mean.astype(np.float32),
        "pca_components": np.ascontiguousarray(directions[:, :kept].T, dtype=np.float32),
        "pca_variances": variances[:kept].astype(np.float32),
        "pca_residual": np.array([residual], np.float32),
    }


def pca_distance(embeddings: Floats, pca: Mapping[str, Floats]) -> Floats:
    """Mahalanobis distance under probabilistic PCA (Tipping and Bishop 1999), (...): each component in units of its own
    standard deviation, the rest in units of `pca_residual`'s.

    Args:
        embeddings: (..., dimension).
    """
    centred = embeddings - pca["pca_mean"]
    along = centred @ pca["pca_components"].T
    rest = np.maximum((centred**2).sum(axis=-1) - (along**2).sum(axis=-1), 0.0)
    squared: Floats = (along**2 / pca["pca_variances"]).sum(axis=-1) + rest / pca["pca_residual"][0]
    return np.sqrt(squared)
