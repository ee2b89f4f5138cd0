"""Several specialists and one base: of the gates that accept a query, the most confident one's specialist answers.

Each gate's bound is of the queries that it accepts itself. Of several that accept, a router picks one, so that each
answers only a part of those: the bound is proved for each gate, not for the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_gemma.errors import UserError
from mlx_gemma.gate.decision import Decision
from mlx_gemma.gate.route import NEAREST, Gate


@dataclass(frozen=True)
class Router:
    """Gates of different specialists."""

    gates: tuple[Gate, ...]

    @classmethod
    def load(cls, folders: Sequence[str | Path]) -> Router:
        """Open gates.

        Raises:
            UserError: see `Gate.load`; no folder, or two specialists of one name.
        """
        return cls.of([Gate.load(folder) for folder in folders])

    @classmethod
    def of(cls, gates: Sequence[Gate]) -> Router:
        """Raises UserError: no gate, or two specialists of one name."""
        if not gates:
            raise UserError("no gate", fix="give at least one")
        seen: dict[str, Path] = {}
        for gate in gates:
            if gate.name in seen:
                fix = "build one of them with another --name"
                raise UserError(f"two gates of {gate.name}, the other is {seen[gate.name]}", where=gate.folder, fix=fix)
            seen[gate.name] = gate.folder
        return cls(tuple(gates))

    def route(self, query: str, k: int = NEAREST) -> Decision:
        """Where a query goes; of its numbers and nearest rows, those of the gate that decided.

        Where none accepts, that is the most confident one's, and the route is "base". Queries are encoded once for all
        gates with one encoder.

        Raises:
            UserError: an encoder is not there, or is another one by now.
        """
        return self.route_batch([query], k)[0]

    def route_batch(self, queries: Sequence[str], k: int = NEAREST) -> list[Decision]:
        """As `route`, encoded and searched together."""
        if not queries:
            return []
        by_encoder = {gate.index.encoder: gate for gate in self.gates}
        embedded = {spec: gate.embed(queries) for spec, gate in by_encoder.items()}
        each = [gate.decide(embedded[gate.index.encoder], k) for gate in self.gates]
        return [self._best(found) for found in zip(*each, strict=True)]

    def _best(self, found: Sequence[Decision]) -> Decision:
        """Scores of different gates are no numbers of one kind; chances are."""
        best = max(found, key=lambda d: (d.band == "in", d.confidence or 0.0))
        bands = {gate.name: decision.band for gate, decision in zip(self.gates, found, strict=True)}
        return replace(best, bands=bands)
