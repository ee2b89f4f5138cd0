"""Search among more rows than a product with all of them should take: usearch's HNSW graph (Apache-2.0), optional.

Malkov and Yashunin, arXiv 1603.09320. What it proposes need not be the nearest rows; their cosines are computed again.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_gemma.errors import UserError
from mlx_gemma.run import disk_errors

GRAPH = "graph.usearch"
AMONG = 4  # rows proposed for one that is wanted


def write_graph(folder: Path, embeddings: NDArray[np.floating[Any]]) -> None:
    """Raises UserError: usearch is not installed, or the disk refuses."""
    graph = _empty(embeddings.shape[1])
    graph.add(np.arange(len(embeddings)), embeddings)
    with disk_errors(folder):
        graph.save(str(folder / GRAPH))


def propose(folder: Path, rows: int, query: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
    """AMONG * k row numbers, or all, in any order.

    Args:
        rows: how many the graph must have.

    Raises:
        UserError: usearch is not installed, or the graph is not there, damaged or another index's.
    """
    found = _opened(folder, rows, len(query)).search(np.asarray(query, np.float32), AMONG * k)
    return np.asarray(found.keys, np.int64)


@lru_cache(maxsize=4)
def _opened(folder: Path, rows: int, dimension: int) -> Any:
    path, graph = folder / GRAPH, _empty(dimension)
    try:
        # usearch 2.26.6 closes descriptor 0, the standard input, where it cannot map a file; mlx then reads no weights.
        if not path.is_file() or not path.stat().st_size:
            raise ValueError("missing or empty")
        graph.view(str(path))
        if len(graph) != rows or graph.ndim != dimension:
            raise ValueError(f"of {len(graph):,} rows and {graph.ndim} dimensions, not {rows:,} and {dimension}")
    except Exception as e:  # RuntimeError, or whatever else usearch makes of a bad file
        fix = "build it again (mlx-gemma gate build)"
        raise UserError(f"the approximate index cannot be read: {e}", where=path, fix=fix) from e
    return graph


def _empty(dimension: int) -> Any:
    try:
        from usearch.index import Index as Graph
    except ImportError as e:
        fix = "pip install 'mlx-gemma[gate]', or build the gate on fewer rows"
        raise UserError("so many rows need usearch, which is not installed", fix=fix) from e
    return Graph(ndim=dimension, metric="ip", dtype="f32")
