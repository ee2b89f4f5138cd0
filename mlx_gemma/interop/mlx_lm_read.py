"""mlx-lm's adapter folders, read, as `mlx_lm.lora` writes them: adapters.safetensors and adapter_config.json.

The form is ours but for what its config leaves out: keys (unset: every linear module of a layer), and what a base is
known by. The tensors tell which modules are adapted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora, places
from mlx_gemma.gemma4.checkpoint import read_json
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.gemma4.names import layer_place
from mlx_gemma.interop.foreign import Foreign, class_prefix, fit, load_arrays, prefix
from mlx_gemma.interop.merge import LEAVES, Arrays

WEIGHTS, CONFIG = lora.WEIGHTS, lora.CONFIG


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json, checked.

    Raises:
        ModelError: a file is missing or unreadable, PEFT's, or of a run of ours on a base quantised in memory.
    """
    if (folder / CONFIG).is_file() and "peft_type" in read_json(folder / CONFIG):
        raise ModelError("an adapter in PEFT's form", where=folder, fix="import it with --from peft")
    config = lora.read_config(folder)
    if config.get("quantization"):
        raise ModelError("a run folder of mlx-gemma", where=folder, fix="use it as it is")
    return config


def read(folder: Path, gemma: Gemma) -> Foreign:
    """An adapter, or fully trained layers, of either class, in our terms; tensors become float32.

    Raises:
        ModelError: a tensor that cannot be held (of embeddings, or a layer_scalar that training changed, which is a
            buffer in transformers), damage, or an adapter of another model than `gemma`.
    """
    config = read_config(folder)
    kind = config["fine_tune_type"]
    arrays: dict[str, Arrays] = {}
    classes = set()
    notices: tuple[str, ...] = ()
    base = _layers(gemma)
    for name, value in load_arrays(folder / WEIGHTS).items():
        inside, _, leaf = (layer_place(name) or "").rpartition(".")
        classes.add(class_prefix(name))
        if leaf == places.BUFFER and kind == "full":
            if not _same(value, base.get(f"{inside}.{leaf}")):
                what = f"{name} is not the base's: trained, it cannot be held, being a buffer in transformers"
                fix = "give the model that it was trained on (--base), or train with mlx-gemma (adapter.kind full)"
                raise ModelError(what, where=folder, fix=fix)
            notices = (f"{places.BUFFER} dropped: it is the base's",)
        elif leaf not in LEAVES[kind]:
            what = f"{name} cannot be held: no {' or '.join(sorted(LEAVES[kind]))} of a decoder layer"
            raise ModelError(what, where=folder, fix="train an adapter on the text decoder's layers only")
        else:
            arrays.setdefault(inside, {})[leaf] = value.astype(mx.float32)
    own = classes == {prefix(gemma.model)}
    if kind == "full":
        for inside, leaves in arrays.items():
            if (held := base.get(f"{inside}.weight")) is None or held.shape != leaves["weight"].shape:
                what = f"it has {inside}.weight {list(leaves['weight'].shape)}, which {gemma.checkpoint.name} has not"
                raise ModelError(what, where=folder, fix="give the model that it was trained on (--base)")
        if not arrays:
            raise ModelError("the adapter holds no tensors", where=folder, fix="copy the adapter again")
        return Foreign(kind, arrays, notices=notices, own_class=own)
    given = config["lora_parameters"]
    for inside, leaves in arrays.items():
        if set(leaves) != LEAVES[kind] or leaves["lora_a"].shape[-1:] != (given["rank"],):
            what = f"{inside} is not of {', '.join(sorted(LEAVES[kind]))} and rank {given['rank']}"
            raise ModelError(what, where=folder, fix="copy both files from the same training")
    kept, dead = fit(arrays, gemma, folder)
    return Foreign(
        kind, kept, given["rank"], float(given["scale"]), float(given.get("dropout") or 0.0),
        rslora=bool(config.get("rslora")), notices=dead, own_class=own,
    )  # fmt: skip


def _layers(gemma: Gemma) -> dict[str, mx.array]:
    """The decoder layers' parameters by place, layer_scalar too."""
    found = places.layer_parameters(gemma.model, None)
    known = {inside: value for name, value in found.items() if (inside := layer_place(name))}
    return known | {f"layers.{i}.{places.BUFFER}": layer.layer_scalar for i, layer in enumerate(gemma.text.layers)}


def _same(value: mx.array, held: mx.array | None) -> bool:
    return held is not None and value.shape == held.shape and bool(mx.array_equal(value.astype(held.dtype), held))
