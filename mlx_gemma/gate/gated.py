"""A gate with the models it routes to: one base in memory, and its adapter, which each decision turns on or off."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mlx_gemma.errors import UserError
from mlx_gemma.gate.decision import BASE
from mlx_gemma.gate.route import Gate
from mlx_gemma.gate.stale import check_adapter
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.variants import Variants


@dataclass(frozen=True)
class Gated:
    """See `open_gated`."""

    gate: Gate
    variants: Variants
    adapter: Path

    @property
    def gemma(self) -> Gemma:
        """Computes as the last `use` said."""
        return self.variants.gemma

    def route(self, query: str) -> str:
        """Who is to answer: a decision's route."""
        return self.gate.route(query).route

    def use(self, route: str) -> None:
        """From now on `gemma` is what the route says: with the adapter, or "base" alone. Microseconds."""
        self.variants.use(None if route == BASE else self.adapter)


def open_gated(folder: Path, model: str, adapter: Path | None = None) -> Gated:
    """Open a gate, and load the model it is of.

    Args:
        folder: the gate's.
        model: a run folder; or with `adapter` its base.

    Raises:
        UserError: the gate is none, stale or of another adapter, no adapter is given, or a model cannot be loaded.

    Cost: `load`'s; the base is quantised as the adapter was trained on it, with the adapter and without.
    """
    gate, revision = Gate.load(folder), None
    if adapter is None and os.path.isdir(run := os.path.expanduser(model)) and lora.is_run(Path(run)):
        adapter = Path(run)
        model, revision = lora.base_of(adapter)
    if adapter is None:
        fix = "give a run folder, or its base and --adapter"
        raise UserError("a gate needs the adapter that it may send queries to", where=model, fix=fix)
    check_adapter(gate.index, adapter)
    variants = Variants(load(model, revision=revision, **lora.quantization_of(adapter)))
    lora.check_base(adapter, variants.gemma.checkpoint)
    variants.add(adapter)
    return Gated(gate, variants, adapter)
