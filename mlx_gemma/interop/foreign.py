"""An adapter that another program trained, in this package's terms: fitted to its base, and written as mlx-lm has it.

    peft_read.read   PEFT's files        -> Foreign
    mlx_lm.read      mlx-lm's files      -> Foreign
    write            Foreign             -> adapters.safetensors, adapter_config.json

mlx-lm's config names modules relative to a layer, in the last so many layers. An adapter that is no such rectangle (of
some layers only, or other modules in each) has the full names of its modules as keys, which mlx-lm takes as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_gemma import run
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora, places
from mlx_gemma.gemma4.adapters import shape_of
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.gemma4.names import layer_place
from mlx_gemma.interop.merge import Arrays, fits

SHARED = re.compile(r"layers\.(\d+)\.self_attn\.[kv]_proj")


@dataclass(frozen=True)
class Foreign:
    """What is held of another program's adapter.

    Attributes:
        kind: lora, dora or full.
        arrays: float32, by place and leaf, as in `merge.Adapter`.
        rank, scale, dropout: of every module; 0, 1 and 0 of full training.
        rslora: whether the scale was told as alpha / sqrt(rank).
        notices: what was left out, and why; one clause each.
        own_class: whether the adapter's names are those of the base's own class.
    """

    kind: str
    arrays: dict[str, Arrays]
    rank: int = 0
    scale: float = 1.0
    dropout: float = 0.0
    rslora: bool = False
    notices: tuple[str, ...] = field(default=())
    own_class: bool = True


def linears(model: Any) -> dict[str, tuple[int, int]]:
    """(out, in) of every linear module in the decoder's layers, by place."""
    return {
        f"layers.{number}.{name}": shape_of(module)
        for number, layer in enumerate(model.layers)
        for name, module in layer.named_modules()
        if isinstance(module, (nn.Linear, *places.QUANTISED))
    }


def fit(arrays: dict[str, Arrays], gemma: Gemma, where: str | Path) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    """What has a place in the base, and a notice if k/v of K/V-shared layers were left out.

    Tools made before transformers 5.23 adapt k_proj and v_proj in the layers that use an earlier layer's K and V. No
    logit depends on them, and neither transformers nor mlx-lm has the modules (mlx-lm refuses such an adapter).

    Raises:
        ModelError: anything else without a place, another shape, or nothing left.
    """
    held = linears(gemma.model)
    own = len(gemma.text.layers) - int(lora.model_args(gemma.model).num_kv_shared_layers)
    dead = [
        p for p in arrays if p not in held and (m := SHARED.fullmatch(p)) and own <= int(m[1]) < len(gemma.text.layers)
    ]
    kept = {p: arrays[p] for p in sorted(set(arrays) - set(dead), key=_order)}
    fix = "give the model that it was trained on (--base)"
    for inside, leaves in kept.items():
        if inside not in held:
            what = f"it adapts {inside}, which {gemma.checkpoint.name} does not have"
            raise ModelError(what, where=where, fix=fix)
        if not fits(held[inside], leaves):
            shapes = ", ".join(f"{leaf} {list(leaves[leaf].shape)}" for leaf in sorted(leaves))
            what = f"it has {shapes} for {inside}, which is {list(held[inside])} in {gemma.checkpoint.name}"
            raise ModelError(what, where=where, fix=fix)
    if not kept:
        what = "it adapts no linear module in the text decoder's layers"
        raise ModelError(what, where=where, fix="train an adapter on q_proj to down_proj of the decoder")
    notices = (f"{len(dead)} k/v modules dropped: layers {own} and up use an earlier layer's K and V",) if dead else ()
    return kept, notices


def prefix(model: nn.Module) -> str:
    """What stands before a place in mlx-lm's names of this model's class."""
    return "language_model.model." if "language_model" in model else "model."


def config(foreign: Foreign, gemma: Gemma) -> dict[str, Any]:
    """adapter_config.json: mlx-lm's keys, `rslora`, and the base, as `lora.save_adapter` records it."""
    base = {"model" if key == "name" else key: value for key, value in gemma.base.items()}
    count = len(gemma.text.layers)
    first = min(int(inside.split(".")[1]) for inside in foreign.arrays)
    layers = -1 if first == 0 else count - first
    if foreign.kind == "full":
        return {"fine_tune_type": "full", "num_layers": layers} | base
    keys = {inside.split(".", 2)[2] for inside in foreign.arrays}
    block = {p for p in linears(gemma.model) if int(p.split(".")[1]) >= first and p.split(".", 2)[2] in keys}
    if block != set(foreign.arrays):
        layers, keys = -1, {prefix(gemma.model) + inside for inside in foreign.arrays}
    parameters = {"rank": foreign.rank, "scale": foreign.scale, "dropout": foreign.dropout, "keys": sorted(keys)}
    rslora = {"rslora": True} if foreign.rslora else {}
    return {"fine_tune_type": foreign.kind, "num_layers": layers, "lora_parameters": parameters} | rslora | base


def write(folder: Path, foreign: Foreign, gemma: Gemma) -> None:
    """Both files, each whole or not at all.

    Raises:
        UserError: they cannot be written.
    """
    stem = prefix(gemma.model)
    named = {f"{stem}{inside}.{leaf}": v for inside, leaves in foreign.arrays.items() for leaf, v in leaves.items()}
    save(folder / lora.WEIGHTS, named, "mlx")
    run.write_json(folder / lora.CONFIG, config(foreign, gemma))


def save(file: Path, arrays: dict[str, mx.array], form: str) -> None:
    """A safetensors file, whole or not at all; `form` is what its metadata says: mlx or pt.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with run.whole(file) as part:
            mx.save_safetensors(str(part), arrays, metadata={"format": form})
    except RuntimeError as e:  # mlx tells a full disk so
        fix = "free space, or choose another output (--out)"
        raise UserError(f"the adapter cannot be written: {e}", where=file.parent, fix=fix) from e


def load_arrays(file: Path) -> dict[str, mx.array]:
    """The tensors of a safetensors file, lazily, in the order of their names.

    Raises:
        ModelError: it is none.
    """
    try:
        found: dict[str, mx.array] = mx.load(str(file), format="safetensors")  # type: ignore[assignment]
        return {name: found[name] for name in sorted(found)}
    except (RuntimeError, ValueError) as e:
        raise ModelError(f"unreadable {file.name}: {e}", where=file.parent, fix="copy the adapter again") from e


def class_prefix(name: str) -> str | None:
    """What stands before a decoder layer's place in a tensor's name; None outside of the layers."""
    inside = layer_place(name)
    return name.removesuffix(inside) if inside else None


def _order(inside: str) -> tuple[int, str]:
    number, rest = inside.removeprefix("layers.").split(".", 1)
    return int(number) if number.isdigit() else 0, rest
