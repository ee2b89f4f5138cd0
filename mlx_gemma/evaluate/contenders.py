"""Whose answers are counted: a model, and what it is compared with, one in memory at a time.

first, second = contenders("runs/python3", compare="base")    # the base, then the adapter on it
gemma = loaded(first, None); gemma = loaded(second, gemma)      # the base's weights are loaded once
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlx.core as mx

from mlx_gemma.digest import digest_text
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import Gemma, load


@dataclass(frozen=True)
class Contender:
    """A base, perhaps an adapter, a gate before it, a system prompt; `quantization` as `load` takes it."""

    model: str
    adapter: Path | None = None
    gate: Path | None = None
    system: str | None = None
    revision: str | None = None
    quantization: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short, and a file's name; of two system prompts two names."""
        name = (self.adapter or Path(os.path.expanduser(self.model))).resolve().name
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in name) or "model"
        name += "-gated" if self.gate else ""
        return f"{name}+{digest_text(self.system)[:6]}" if self.system else name


def contender(
    model: str, adapter: Path | None = None, system: str | None = None, gate: Path | None = None
) -> Contender:
    """As `load` reads a name: a run folder is its base and its adapter.

    Raises:
        ModelError: a folder that is no adapter.
        UserError: a gate without an adapter.
    """
    revision, folder = None, Path(os.path.expanduser(model))
    if adapter is None and folder.is_dir() and lora.is_run(folder):
        adapter = folder
        model, revision = lora.base_of(folder)
    quantization = lora.quantization_of(adapter) if adapter else {}
    if gate is not None and adapter is None:
        raise UserError(
            "a gate needs the adapter that it may send queries to", where=model, fix="give it with --adapter"
        )
    return Contender(model, adapter, gate, system or None, revision, quantization)


def contenders(
    model: str,
    adapter: Path | None = None,
    system: str | None = None,
    *,
    gate: Path | None = None,
    compare: str | None = None,
    compare_system: str | None = None,
) -> list[Contender]:
    """The model; before it what it is compared with.

    Args:
        gate: of the model's adapter, not of the other's.
        compare: "base" for the model without its adapter, or another model or run (the same run: without the gate);
            None with a `compare_system`: the same model.
        compare_system: the other's system prompt, "" for none; by default the same.

    Raises:
        UserError: "base" without an adapter, or both are the same.
    """
    mine = contender(model, adapter, system, gate)
    if compare is None and compare_system is None:
        return [mine]
    if compare == "base":
        if mine.adapter is None:
            raise UserError("has no adapter to be compared with its base", where=model, fix="name another model")
        other = replace(mine, adapter=None, gate=None)  # quantised as the adapter's base was
    else:
        other = contender(compare, None, system) if compare else mine
    if compare_system is not None:
        other = replace(other, system=compare_system or None)
    if other == mine:
        raise UserError("would be compared with itself", where=model, fix="name another model, or another prompt")
    return [other, mine]


def loaded(wanted: Contender, held: Gemma | None) -> Gemma:
    """The model in memory; what is held serves where only the adapter is missing, else it is given up first."""
    same = held is not None and held.adapter is None and held.quantization == wanted.quantization
    if held is not None and same and _is(held, wanted):
        if wanted.adapter is not None:
            lora.check_base(wanted.adapter, held.checkpoint)
            lora.load_adapter(held.model, wanted.adapter)
            held.adapter = wanted.adapter
            held.model.eval()
        return held
    if held is not None and held.adapter == wanted.adapter and _is(held, wanted):
        return held
    if held is not None:
        give_up(held)
    return load(wanted.model, adapter=wanted.adapter, revision=wanted.revision, **wanted.quantization)


def give_up(held: Gemma) -> None:
    """Free a model's memory, whoever holds the Gemma."""
    held.model = None
    gc.collect()
    mx.clear_cache()


def _is(held: Gemma, wanted: Contender) -> bool:
    return held.checkpoint.name == wanted.model and wanted.revision in (None, held.checkpoint.revision)
