"""PEFT's LoRA files, read; for what their adapter_config.json may say see peft_config.

    base_model.model.model.language_model.layers.3.mlp.up_proj.lora_A.weight   [rank, in]    lora_a, transposed
    ….lora_B.weight                                                            [out, rank]   lora_b, transposed
    ….lora_magnitude_vector                                                    [out]         m

(reference/gemma4.md, section 3.) The tensors tell which modules are adapted: what target_modules names and no tensor
changes is as it was.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.gemma4.names import layer_place
from mlx_gemma.interop.foreign import Foreign, class_prefix, fit, load_arrays, prefix
from mlx_gemma.interop.merge import Arrays
from mlx_gemma.interop.peft_config import CONFIG, WEIGHTS, read_config, read_scaling

STEM = "base_model.model."
LEAVES = {
    "lora_A.weight": "lora_a",
    "lora_B.weight": "lora_b",
    "lora_magnitude_vector": "m",
    "lora_magnitude_vector.weight": "m",  # not as PEFT saves it, but it loads it
}
CLASSES = {"language_model.model.": "model.language_model.", "model.": "model."}  # by mlx-lm's prefix: transformers'
TOWERS = re.compile(r"(?:model\.)?((?:vision|audio)_tower|embed_(?:vision|audio)|multi_modal_projector)\.")
DTYPES = (mx.float32, mx.float16, mx.bfloat16)


def modules(folder: Path) -> tuple[dict[str, dict[str, mx.array]], tuple[str, ...]]:
    """Every adapted module of the text decoder by its full name in transformers' class, its tensors by our leaves.

    The tensors are as in the file, lazily read; the second is a notice, if any, of the towers' that were left out.

    Raises:
        ModelError: a tensor that is no factor of a LoRA in a decoder layer.
    """
    found: dict[str, dict[str, mx.array]] = {}
    towers = Counter[str]()
    for name, value in load_arrays(folder / WEIGHTS).items():
        module, leaf = next(
            ((name.removesuffix(f".{s}"), v) for s, v in LEAVES.items() if name.endswith(f".{s}")), ("", "")
        )
        if tower := TOWERS.match(name.removeprefix(STEM)):
            towers[tower[1]] += 1
        elif not leaf or not module.startswith(STEM) or not layer_place(module.removeprefix(STEM)):
            fix = "train an adapter on the linear modules of the text decoder's layers"
            raise ModelError(f"{name} is no factor of a LoRA in a decoder layer", where=folder, fix=fix)
        elif value.dtype not in DTYPES:
            raise ModelError(f"{name} is {value.dtype}", where=folder, fix="save it in float32, float16 or bfloat16")
        else:
            found.setdefault(module.removeprefix(STEM), {})[leaf] = value
    notice = (
        f"{sum(towers.values())} tensors of {', '.join(sorted(towers))} dropped: only the text decoder is held here"
    )
    return found, (notice,) if towers else ()


def read(folder: Path, gemma: Gemma) -> Foreign:
    """An adapter of either class, in our terms. float16 and bfloat16 become float32, which is exact.

    Raises:
        ModelError: it cannot be held (`read_config`, `modules`), is damaged, or is of another model than `gemma`.
    """
    config = read_config(folder)
    scaling = read_scaling(folder, config)
    leaves = {"lora_a", "lora_b", "m"} if config.get("use_dora") else {"lora_a", "lora_b"}
    held, towers = modules(folder)
    arrays: dict[str, Arrays] = {}
    scales: dict[str, float] = {}
    for module, values in held.items():
        inside, (rank, _) = str(layer_place(module)), scaling.of(module)
        if set(values) != leaves or inside in arrays:
            what = f"{module} has {', '.join(sorted(values))}, not {', '.join(sorted(leaves))} once"
            raise ModelError(what, where=folder, fix="copy the adapter again")
        if values["lora_a"].shape[:1] != (rank,):
            what = f"{module} has a lora_A {list(values['lora_a'].shape)}, and {CONFIG} says rank {rank}"
            raise ModelError(what, where=folder, fix="copy both files from the same training")
        arrays[inside] = {leaf: v.astype(mx.float32).T for leaf, v in values.items()}  # m is a vector: its own .T
        scales[inside] = scaling.scale(module)
    kept, dead = fit(arrays, gemma, folder)
    kept, rank, scale = fold(kept, {inside: scales[inside] for inside in kept})
    kind = "dora" if config.get("use_dora") else "lora"
    own = {class_prefix(module) for module in held} == {CLASSES[prefix(gemma.model)]}
    return Foreign(kind, kept, rank, scale, scaling.dropout, scaling.rslora, towers + dead, own)


def fold(arrays: dict[str, Arrays], scales: dict[str, float]) -> tuple[dict[str, Arrays], int, float]:
    """One rank and one scale for all modules, as mlx-lm's form wants it.

    The rank is the largest: other factors get zeros, which is exact. The scale is the most frequent: where a module's
    own is another, its lora_b is multiplied by the quotient, each entry rounded once to float32 (by 6e-8 at most, and
    not at all where the quotient is a power of two).
    """
    rank = max(leaves["lora_a"].shape[1] for leaves in arrays.values())
    frequent = Counter(scale for scale in scales.values() if scale).most_common(1)
    common = frequent[0][0] if frequent else 0.0
    folded: dict[str, Arrays] = {}
    for inside, leaves in arrays.items():
        a, b = leaves["lora_a"], leaves["lora_b"]
        if scales[inside] != common:
            b = mx.array((np.asarray(b).astype(np.float64) * (scales[inside] / common)).astype(np.float32))
        if (missing := rank - a.shape[1]) > 0:
            a, b = mx.pad(a, [(0, 0), (0, missing)]), mx.pad(b, [(0, missing), (0, 0)])
        folded[inside] = leaves | {"lora_a": a, "lora_b": b}
    return folded, rank, common
