"""An adapter folded into the tensors of a safetensors file, in float32.

LoRA: V = W + scale * (lora_b.T @ lora_a.T). DoRA: V, its rows stretched to the length m. Full: the trained tensor. A
merged tensor keeps its dtype and shape, so a file keeps its header and every offset: it is copied whole, and the
merged tensors' bytes are overwritten in the copy. What is not merged cannot change. Memory: one tensor in float32.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.headers import Tensor, tensors
from mlx_gemma.platform import scalar

# A decoder layer's tensor, as transformers names it in both classes and as mlx-lm names it in its multimodal class.
IN_LAYER = re.compile(r"(?:model\.language_model|language_model\.model|model)\.(layers\.\d+\..+)")
DTYPES = {"F32": (np.uint32, mx.float32), "F16": (np.uint16, mx.float16), "BF16": (np.uint16, mx.bfloat16)}


LEAVES = {"lora": {"lora_a", "lora_b"}, "dora": {"lora_a", "lora_b", "m"}, "full": {"weight"}}
Arrays = dict[str, mx.array]  # by leaf: lora_a [in, rank], lora_b [rank, out], m [out]; or weight


@dataclass(frozen=True)
class Adapter:
    """An adapter's arrays by place (`layers.3.mlp.up_proj`, whatever the class)."""

    arrays: dict[str, Arrays]
    names: dict[str, str]  # place -> the module's name in the adapter's own file
    scale: float


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
        inside = IN_LAYER.fullmatch(module)
        if inside is None or set(modules[module]) != LEAVES[kind]:
            fix = f"give an adapter with {' and '.join(sorted(LEAVES[kind]))} on layers of the text decoder only"
            raise ModelError(f"adapter tensors of {module} cannot be merged", where=folder, fix=fix)
        arrays[inside[1]], names[inside[1]] = modules[module], module
    if not arrays:
        raise ModelError("the adapter holds no tensors", where=folder, fix="train or copy the adapter again")
    return Adapter(arrays, names, 1.0 if kind == "full" else float(config["lora_parameters"]["scale"]))


def place_of(name: str) -> str | None:
    """`layers.3.mlp.up_proj` for a weight of a decoder layer, None for every other tensor."""
    inside = IN_LAYER.fullmatch(name)
    return inside[1].removesuffix(".weight") if inside and name.endswith(".weight") else None


def merge_file(source: Path, target: Path, adapter: Adapter) -> list[float]:
    """Write `target`: `source` with the adapter merged into what it has a place for.

    Returns:
        For each merged tensor, the relative change |merged - W| / |W| (Frobenius norms, before rounding).

    Raises:
        ModelError: a tensor is not of the adapter's shape.
        OSError: the disk is full or read-only; `target` is then incomplete.
    """
    changes = []
    shutil.copyfile(source, target)
    with source.open("rb") as reading, target.open("r+b") as writing:
        for name, tensor in tensors(source).items():
            arrays = adapter.arrays.get(place_of(name) or "")
            if arrays is None:
                continue
            if not _fits(tensor.shape, arrays):
                held = ", ".join(f"{leaf} {list(arrays[leaf].shape)}" for leaf in sorted(arrays))
                what = f"{name} is {list(tensor.shape)}, the adapter has {held}"
                raise ModelError(what, where=source, fix="export onto the checkpoint that the adapter was trained on")
            reading.seek(tensor.start)
            data, change = _merged(reading.read(tensor.size), tensor, arrays, adapter.scale)
            writing.seek(tensor.start)
            writing.write(data)
            changes.append(change)
        writing.flush()
        os.fsync(writing.fileno())
    return changes


def _fits(shape: tuple[int, ...], arrays: Arrays) -> bool:
    if "weight" in arrays:
        return arrays["weight"].shape == shape
    a, b, m = arrays["lora_a"], arrays["lora_b"], arrays.get("m")
    factors = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0] and shape == (b.shape[1], a.shape[0])
    return factors and (m is None or m.shape == shape[:1])


def _merged(raw: bytes, tensor: Tensor, arrays: Arrays, scale: float) -> tuple[bytes, float]:
    storage, dtype = DTYPES[tensor.dtype]
    with mx.stream(mx.cpu):  # GPUs may take float32 products in reduced precision
        weight = mx.array(np.frombuffer(raw, storage)).view(dtype).reshape(tensor.shape).astype(mx.float32)
        given = {leaf: value.astype(mx.float32) for leaf, value in arrays.items()}
        merged = given["weight"] if "weight" in given else weight + scale * (given["lora_b"].T @ given["lora_a"].T)
        if "m" in given:
            merged = merged * (given["m"] / mx.linalg.norm(merged, axis=1))[:, None]
        change = mx.linalg.norm(merged - weight) / mx.maximum(mx.linalg.norm(weight), 1e-30)
        bits = merged.astype(dtype).view(mx.uint32 if storage is np.uint32 else mx.uint16)
        return np.asarray(bits).tobytes(), scalar(change)
