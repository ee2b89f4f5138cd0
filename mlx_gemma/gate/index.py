"""The knowledge base: one safetensors file, mapped into memory, and the search for the rows nearest to a query.

    embeddings   float32 [rows, dimension]   L2-normalised
    text         uint8 [bytes]               a JSON line a row: its prompt, answer and file:line
    offsets      int64 [rows + 1]            where each line begins; the last is their end
    pca_*        float32                     of scores.fit_pca

Its metadata names the encoder, the run, and the digests of all it was made of. The file holds the training texts: treat
it as you treat these. To EXACT_ROWS rows the search is exact, by one product with all rows; beyond that, usearch's HNSW
graph beside the file proposes rows, and their cosines are then computed exactly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gate.approximate import propose, write_graph
from mlx_gemma.gate.encoders import KINDS, EncoderSpec, Floats
from mlx_gemma.gate.scores import fit_pca
from mlx_gemma.gemma4 import headers
from mlx_gemma.run import disk_errors

FILE, FORMAT = "index.safetensors", "1"
DIGESTS = ("data", "encoder", "adapter", "base", "template")
PCA = ("pca_mean", "pca_components", "pca_variances", "pca_residual")
DTYPES = {"F32": np.float32, "U8": np.uint8, "I64": np.int64}
EXACT_ROWS = 1_000_000
PRODUCTS = 1 << 25  # cosines held at once: 128 MB
BUILD = "build it again (mlx-gemma gate build)"

Ints = NDArray[np.int64]


class KnownRow(NamedTuple):
    """A row of the knowledge base: its last user turn, the answer to it, and `file:line`."""

    prompt: str
    answer: str
    where: str


@dataclass(frozen=True)
class Made:
    """What an index was made of: the specialist's name, its run folder as seen from the gate's, and digests by name."""

    name: str
    run: str
    encoder: EncoderSpec
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Index:
    """An open knowledge base; arrays are mapped and read-only."""

    folder: Path
    made: Made
    embeddings: Floats
    pca: Mapping[str, Floats]
    text: NDArray[np.uint8]
    offsets: Ints

    def __len__(self) -> int:
        """Rows."""
        return len(self.embeddings)

    @property
    def digests(self) -> Mapping[str, str]:
        return self.made.digests

    @property
    def encoder(self) -> EncoderSpec:
        return self.made.encoder

    @property
    def run(self) -> Path:
        """The run folder that the gate was built from, there or not."""
        return self.folder.resolve() / self.made.run

    def row(self, row: int) -> KnownRow:
        line = self.text[self.offsets[row] : self.offsets[row + 1]].tobytes()
        try:
            return KnownRow(*json.loads(line))
        except (ValueError, TypeError) as e:
            raise UserError(f"row {row} is damaged", where=self.folder / FILE, fix=BUILD) from e

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        """Cosines [queries, k] of the k nearest rows, descending, and the rows; equals by row number. k <= rows.

        Args:
            queries: float32 [queries, dimension], L2-normalised.

        Cost: exact, rows * dimension multiplications a query.
        """
        k = min(k, len(self))
        similarities, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        if len(self) > EXACT_ROWS:
            for i, query in enumerate(queries):
                near = np.sort(propose(self.folder, len(self), query, k))
                similarities[i], best = _largest(self.embeddings[near] @ query, k)
                rows[i] = near[best]
            return similarities, rows
        step = max(1, PRODUCTS // len(self))
        for first in range(0, len(queries), step):
            part = queries[first : first + step]
            # One query alone is a product of matrix and vector, which reads the rows once and copies nothing.
            found = (self.embeddings @ part[0])[None] if len(part) == 1 else part @ self.embeddings.T
            for i, cosines in enumerate(found, first):
                similarities[i], rows[i] = _largest(cosines, k)
        return similarities, rows


def _largest(values: Floats, k: int) -> tuple[Floats, Ints]:
    """The k largest, descending, and their places; of equal values the first places."""
    edge = np.partition(values, len(values) - k)[len(values) - k]
    above, equal = np.flatnonzero(values > edge), np.flatnonzero(values == edge)
    places = np.concatenate([above, equal[: k - len(above)]])
    places = places[np.lexsort((places, -values[places]))]
    return values[places], places


def write_index(folder: Path, rows: Iterable[KnownRow], embeddings: Floats, made: Made) -> None:
    """Write an index into a folder that is there. Memory: the embeddings twice.

    Args:
        rows: as many as embeddings, at least one.
        embeddings: float32 [rows, dimension].

    Raises:
        UserError: the disk refuses, or the rows are more than EXACT_ROWS and usearch is not installed.
    """
    from safetensors.numpy import save_file

    lines = [json.dumps(row).encode() for row in rows]  # ASCII: half a surrogate pair as its escape
    offsets = np.concatenate([[0], np.cumsum([len(line) for line in lines])]).astype(np.int64)
    text = np.frombuffer(b"".join(lines), np.uint8)
    tensors = {"embeddings": embeddings, "text": text, "offsets": offsets, **fit_pca(embeddings)}
    with disk_errors(folder):
        save_file(tensors, folder / FILE, {"format": FORMAT, "made": json.dumps(asdict(made))})
    if len(embeddings) > EXACT_ROWS:
        write_graph(folder, embeddings)


def open_index(folder: Path) -> Index:
    """Open a gate's index: milliseconds at any size.

    Raises:
        UserError: there is none, or it is cut off, damaged, of another version, or does not fit together.
    """
    path = folder / FILE
    if not os.path.isfile(path):  # os.path, as Path.is_file raises where a name is too long for a file
        own = folder / "gate"
        fix = f"give {own}" if os.path.isfile(own / FILE) else "make one: mlx-gemma gate build RUN"
        raise UserError("no gate here", where=folder, fix=fix)
    try:
        held, about = headers.tensors(path), headers.metadata(path) or {}
        if about.get("format") != FORMAT:
            raise ValueError("no index of this version")
        made = _made(json.loads(about["made"]))
        arrays = {name: _mapped(path, held[name]) for name in ("embeddings", "text", "offsets", *PCA)}
        embeddings, text, offsets = arrays["embeddings"], arrays["text"], arrays["offsets"]
        rows, dimension = embeddings.shape
        if dimension != made.encoder.dimension or arrays["pca_mean"].shape != (dimension,):
            raise ValueError(f"{dimension} dimensions, where its encoder has {made.encoder.dimension}")
        components = len(arrays["pca_variances"])
        if arrays["pca_components"].shape != (components, dimension) or arrays["pca_residual"].shape != (1,):
            raise ValueError("its components do not fit together")
        if not rows or offsets.shape != (rows + 1,) or offsets[0] != 0 or offsets[-1] != len(text):
            raise ValueError("its rows and texts do not fit together")
    except ModelError as e:
        raise UserError(f"a damaged index: {e.what}", where=path, fix=BUILD) from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"a damaged index: {e}", where=path, fix=BUILD) from e
    return Index(folder, made, embeddings, {name: arrays[name] for name in PCA}, text, offsets)


def _made(found: dict[str, Any]) -> Made:
    encoder = EncoderSpec(**found["encoder"])
    if encoder.kind not in KINDS or set(found["digests"]) != set(DIGESTS):
        raise ValueError("its encoder or digests are none")
    return Made(str(found["name"]), str(found["run"]), encoder, dict(found["digests"]))


def _mapped(path: Path, tensor: headers.Tensor) -> NDArray[Any]:
    dtype = np.dtype(DTYPES[tensor.dtype])
    if int(np.prod(tensor.shape)) * dtype.itemsize != tensor.size:
        raise ValueError("a tensor's size is not that of its shape")
    if not tensor.size:  # of one row, the components
        return np.zeros(tensor.shape, dtype)
    mapped = np.memmap(path, dtype, "r", tensor.start, tensor.shape)
    return np.asarray(mapped)  # a plain array: numpy's memmap class costs time at every slice
