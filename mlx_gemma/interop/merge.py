"""An adapter folded into weights, in float32.

LoRA: V = W + scale * (lora_b.T @ lora_a.T). DoRA: V, its rows stretched to the length m. Full: the trained tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.adapters import LoRALinear
from mlx_gemma.gemma4.names import layer_place
from mlx_gemma.platform import scalar

LEAVES = {"lora": {"lora_a", "lora_b"}, "dora": {"lora_a", "lora_b", "m"}, "full": {"weight"}}
BLOCK = 16 * 2**20  # numbers at a time
Rounding = Callable[[str, mx.array], mx.array]  # of whole rows of `layers.3.mlp.up_proj.weight`: as they are read back
Arrays = dict[str, mx.array]  # by leaf: lora_a [in, rank], lora_b [rank, out], m [out]; or weight


@dataclass(frozen=True)
class Adapter:
    """An adapter's arrays by place (`layers.3.mlp.up_proj`, whatever the class)."""

    arrays: dict[str, Arrays]
    names: dict[str, str]  # place -> the module's name in the adapter's own file
    scale: float
    kind: str = "lora"  # or dora, full


def read_adapter(folder: Path) -> Adapter:
    """An adapter in mlx-lm's form, to be merged.

    Raises:
        ModelError: damaged, or a tensor outside of the decoder's layers.
    """
    config = lora.read_config(folder)
    kind = config["fine_tune_type"]
    try:
        weights: dict[str, mx.array] = mx.load(str(folder / lora.WEIGHTS))  # type: ignore[assignment]
    except RuntimeError as e:
        raise ModelError(f"unreadable {lora.WEIGHTS}: {e}", where=folder, fix="train or copy the adapter again") from e
    modules: dict[str, Arrays] = {}
    for name, value in weights.items():
        module, _, leaf = name.rpartition(".")
        modules.setdefault(module, {})[leaf] = value
    arrays, names = {}, {}
    for module in sorted(modules):
        inside = layer_place(module)
        if inside is None or set(modules[module]) != LEAVES[kind]:
            fix = f"give an adapter with {' and '.join(sorted(LEAVES[kind]))} on layers of the text decoder only"
            raise ModelError(f"adapter tensors of {module} cannot be merged", where=folder, fix=fix)
        arrays[inside], names[inside] = modules[module], module
    if not arrays:
        raise ModelError("the adapter holds no tensors", where=folder, fix="train or copy the adapter again")
    return Adapter(arrays, names, 1.0 if kind == "full" else float(config["lora_parameters"]["scale"]), kind)


def place_of(name: str) -> str | None:
    """`layers.3.mlp.up_proj` for a weight of a decoder layer, None for every other tensor."""
    inside = layer_place(name)
    return inside.removesuffix(".weight") if inside and name.endswith(".weight") else None


def fits(shape: tuple[int, ...], arrays: Arrays) -> bool:
    """Whether an adapter's arrays are of a weight of this shape."""
    if "weight" in arrays:
        return arrays["weight"].shape == shape
    a, b, m = arrays["lora_a"], arrays["lora_b"], arrays.get("m")
    factors = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0] and shape == (b.shape[1], a.shape[0])
    return factors and (m is None or m.shape == shape[:1])


def merge(weight: mx.array, arrays: Arrays, scale: float) -> tuple[mx.array, float]:
    """A weight [out, in] with the adapter's arrays in it, float32, on the CPU: GPUs may take products in less.

    Returns:
        The weight, and the relative change |merged - W| / |W| (Frobenius norms).
    """
    with mx.stream(mx.cpu):
        weight = weight.astype(mx.float32)
        given = {leaf: value.astype(mx.float32) for leaf, value in arrays.items()}
        merged = given["weight"] if "weight" in given else weight + scale * (given["lora_b"].T @ given["lora_a"].T)
        if "m" in given:
            merged = merged * (given["m"] / mx.linalg.norm(merged, axis=1))[:, None]
        change = mx.linalg.norm(merged - weight) / mx.maximum(mx.linalg.norm(weight), 1e-30)
        return merged, scalar(change)


def merge_in_place(decoder: Any, rounding: Rounding) -> None:
    """Merge a loaded text decoder's adapters into its weights, and round every tensor as an export does.

    This makes, without a file, the function that a merged export must compute: scale and factors are those that the
    loaded model computed with.

    Args:
        decoder: mlx-lm's Gemma4TextModel in full precision, its adapters attached.

    Raises:
        ModelError: a merged weight is not what its layer computes.

    Cost: memory for one merged matrix, or one block of another tensor.
    """
    done = set()
    for name, module in decoder.named_modules():
        if isinstance(module, LoRALinear):
            linear = module.linear
            arrays = {leaf: module[leaf] for leaf in ("lora_a", "lora_b", "m") if leaf in module}
            merged = merge(linear.weight, arrays, module.scale)[0]
            _check(name, module, merged)
            linear.weight = rounding(f"{name}.weight", merged)
            mx.eval(linear.weight)
            decoder.update_modules(tree_unflatten([(name, linear)]))
            done.add(f"{name}.weight")
    for name, value in tree_flatten(decoder.parameters()):
        rows = max(1, BLOCK // math.prod(value.shape[1:]))
        for first in range(0, 0 if name in done else len(value), rows):
            block = rounding(name, value[first : first + rows].astype(mx.float32)).astype(value.dtype)
            mx.eval(block)
            value[first : first + rows] = block  # in place, in the module too
            mx.eval(value)


def _check(name: str, module: LoRALinear, merged: mx.array) -> None:
    """Whether a merged weight moves a layer's outputs as its adapter does, on random inputs, in float32 on the CPU.

    Accepted are 2 % of the movement, and what rounding to float32 makes of the weight itself.
    """
    with mx.stream(mx.cpu):
        x = mx.random.normal((8, merged.shape[1]), key=mx.random.key(0))
        plain = x @ module.linear.weight.astype(mx.float32).T
        moved = module(x) - module.linear(x)
        off = mx.linalg.norm(x @ merged.T - plain - moved)
        most = 0.02 * mx.linalg.norm(moved) + 1e-5 * mx.linalg.norm(plain)
        if not bool((off <= most).item()):
            what = f"the merged weight of {name} is not what the adapter computes (off by {scalar(off):.1e})"
            raise ModelError(what, fix="report this with the adapter's config")
