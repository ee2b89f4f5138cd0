"""Routing: Gate.load(folder).route(query) says specialist or base, by which score, and why. No model is loaded.

    gate = Gate.load("runs/python3/gate")
    decision = gate.route("Write a function that reverses a string.")
    decision.route, decision.reason

A query that cannot be scored (empty, not text, too long) goes to the base, as everything does before calibration. What
is stale is refused: an index that was calibrated as another, or a run folder that holds another adapter by now.
Several specialists: router.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlx_gemma.errors import UserError
from mlx_gemma.gate.calibrated import Calibrated, check_fresh, read_calibrated
from mlx_gemma.gate.decision import Decision, Near, decide
from mlx_gemma.gate.encoders import Encoder, Floats, open_encoder
from mlx_gemma.gate.index import Index, Ints, open_index
from mlx_gemma.gate.scores import NAMES, NEIGHBOURS, score_all
from mlx_gemma.gate.stale import FIX, check_run

MAX_CHARACTERS = 16_384  # some 4,000 tokens; the default encoder reads 256
NEAREST = 3


class Embedded(NamedTuple):
    """Queries as vectors [queries, dimension]; of what has a fault, zeros.

    Attributes:
        faults: why a query is not scored, else None.
        notes: what a reader of its score should know, else "".
        milliseconds: of the encoder, for all; without loading it.
    """

    faults: list[str | None]
    notes: list[str]
    vectors: Floats
    milliseconds: float


class Measured(NamedTuple):
    """Scores by name (scores.py), float64 [queries], NaN of what has a fault; and the nearest rows.

    Attributes:
        similarities, rows: [queries, NEIGHBOURS or the number of rows], descending.
    """

    scores: dict[str, Floats]
    similarities: Floats
    rows: Ints


def fault(query: str) -> str | None:
    """Why a query is not scored at all."""
    if not query.strip():
        return "the query is empty"
    if len(query) > MAX_CHARACTERS:
        return f"the query has {len(query):,} characters, more than {MAX_CHARACTERS:,}"
    if "\0" in query or any("\ud800" <= c <= "\udfff" for c in query):
        return "the query is no text: it holds NUL, or bytes that are no UTF-8"
    return None


@dataclass(frozen=True)
class Gate:
    """One specialist's knowledge base and threshold; `calibrated` is None before `mlx-gemma gate calibrate`."""

    folder: Path
    index: Index
    calibrated: Calibrated | None
    given: Encoder | None = None

    @classmethod
    def load(cls, folder: str | Path, *, encoder: Encoder | None = None) -> Gate:
        """Open a gate, in milliseconds; the encoder is loaded with the first query.

        Args:
            encoder: one that is open already, the one that the index was made with.

        Raises:
            UserError: no gate, a damaged one, or a stale one.
        """
        folder = Path(folder)
        index, calibrated = open_index(folder), read_calibrated(folder)
        if calibrated is not None:
            check_fresh(calibrated, index.digests, folder)
        check_run(index)
        if encoder is not None and encoder.spec != index.encoder:
            what = f"a stale gate: made with the encoder {index.encoder.name}, {index.encoder.dimension} dimensions"
            raise UserError(f"{what}, not with {encoder.spec.name}, {encoder.spec.dimension}", where=folder, fix=FIX)
        return cls(folder, index, calibrated, encoder)

    @property
    def name(self) -> str:
        """The specialist's."""
        return self.index.made.name

    @cached_property
    def encoder(self) -> Encoder:
        """Loaded when it is first asked for.

        Raises:
            UserError: see `encoders.open_encoder`.
        """
        return self.given or open_encoder(self.index.encoder, self.folder)

    def embed(self, queries: Sequence[str]) -> Embedded:
        """Encode what can be scored; where nothing can be, no encoder is loaded."""
        faults = [fault(query) for query in queries]
        notes, vectors = [""] * len(queries), np.zeros((len(queries), self.index.encoder.dimension), np.float32)
        sound = [i for i, found in enumerate(faults) if found is None]
        if not sound:
            return Embedded(faults, notes, vectors, 0.0)
        encoder = self.encoder
        started = time.perf_counter()
        vectors[sound] = encoder.encode([queries[i] for i in sound])
        for i in sound:
            if not vectors[i].any():
                faults[i] = "the encoder knows no part of the query"
            elif (read := encoder.cut(queries[i])) is not None:
                notes[i] = f"the encoder reads the query's first {read} tokens alone"
        return Embedded(faults, notes, vectors, (time.perf_counter() - started) * 1e3)

    def measure(self, embedded: Embedded) -> Measured:
        """Scores and nearest rows."""
        similarities, rows = self.index.search(embedded.vectors, NEIGHBOURS)
        scores = score_all(similarities, embedded.vectors, self.index.pca)
        bad = np.array([found is not None for found in embedded.faults], bool)
        return Measured({name: np.where(bad, np.nan, scores[name]) for name in NAMES}, similarities, rows)

    def route(self, query: str, k: int = NEAREST) -> Decision:
        """Where a query goes.

        Args:
            k: nearest rows to show, NEIGHBOURS at most.

        Raises:
            UserError: the encoder is not there, or is another one by now. A query never raises.

        Cost: the encoder's, and at 5,000 rows under 2 ms (docs/gate.md).
        """
        return self.route_batch([query], k)[0]

    def route_batch(self, queries: Sequence[str], k: int = NEAREST) -> list[Decision]:
        """As `route`, encoded and searched together; the scores differ from `route`'s by rounding, some 1e-7."""
        return self.decide(self.embed(queries), k) if queries else []

    def decide(self, embedded: Embedded, k: int = NEAREST) -> list[Decision]:
        """As `route_batch`, of queries that are encoded."""
        started, count = time.perf_counter(), len(embedded.faults)
        measured = self.measure(embedded)
        near = [
            () if fault is not None else self._near(similarities[:k], rows[:k])
            for fault, similarities, rows in zip(embedded.faults, measured.similarities, measured.rows, strict=True)
        ]
        times = {"encode": embedded.milliseconds / count, "search": (time.perf_counter() - started) * 1e3 / count}
        times["all"] = sum(times.values())
        scores = [{name: float(values[i]) for name, values in measured.scores.items()} for i in range(count)]
        each = zip(scores, near, embedded.faults, embedded.notes, strict=True)
        return [decide(self.name, self.calibrated, s, n, times, fault, note) for s, n, fault, note in each]

    def _near(self, similarities: Floats, rows: Ints) -> tuple[Near, ...]:
        return tuple(Near(float(s), *self.index.row(int(r))) for s, r in zip(similarities, rows, strict=True))
