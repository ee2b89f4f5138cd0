"""An adapter folded into the tensors of a safetensors file: W + scale * (lora_b.T @ lora_a.T), in float32.

A merged tensor keeps its dtype and shape, so a file keeps its header and every offset: it is copied whole, and the
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


@dataclass(frozen=True)
class Adapter:
    """LoRA factors by place (`layers.3.mlp.up_proj`, whatever the class): (lora_a [in, rank], lora_b [rank, out])."""

    factors: dict[str, tuple[mx.array, mx.array]]
    names: dict[str, str]  # place -> the module's name in the adapter's own file
    scale: float


def read_adapter(folder: Path) -> Adapter:
    """An adapter in mlx-lm's form, to be merged.

    Raises:
        ModelError: not LoRA, damaged, or a tensor outside of the decoder's layers.
    """
    config = lora.read_config(folder)
    kind = config.get("fine_tune_type", "lora")
    if kind != "lora":
        raise ModelError(f"a {kind} adapter cannot be merged yet", where=folder, fix="give a LoRA adapter")
    try:
        weights: dict[str, mx.array] = mx.load(str(folder / lora.WEIGHTS))  # type: ignore[assignment]
    except RuntimeError as e:
        raise ModelError(f"unreadable {lora.WEIGHTS}: {e}", where=folder, fix="train or copy the adapter again") from e
    factors, names = {}, {}
    for module in sorted({name.rpartition(".")[0] for name in weights}):
        inside, pair = IN_LAYER.fullmatch(module), [weights.get(f"{module}.lora_{x}") for x in "ab"]
        if inside is None or pair[0] is None or pair[1] is None:
            fix = "give an adapter with lora_a and lora_b on layers of the text decoder only"
            raise ModelError(f"adapter tensors of {module} cannot be merged", where=folder, fix=fix)
        factors[inside[1]], names[inside[1]] = (pair[0], pair[1]), module
    if not factors:
        raise ModelError("the adapter holds no tensors", where=folder, fix="train or copy the adapter again")
    return Adapter(factors, names, float(config["lora_parameters"]["scale"]))


def place_of(name: str) -> str | None:
    """`layers.3.mlp.up_proj` for a weight matrix of a decoder layer, None for every other tensor."""
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
            factors = adapter.factors.get(place_of(name) or "")
            if factors is None:
                continue
            a, b = factors
            if tensor.shape != (b.shape[-1], a.shape[0]) or a.shape[1] != b.shape[0]:
                what = f"{name} is {list(tensor.shape)}, the adapter's factors {list(a.shape)} and {list(b.shape)}"
                raise ModelError(what, where=source, fix="export onto the checkpoint that the adapter was trained on")
            reading.seek(tensor.start)
            data, change = _merged(reading.read(tensor.size), tensor, a, b, adapter.scale)
            writing.seek(tensor.start)
            writing.write(data)
            changes.append(change)
        writing.flush()
        os.fsync(writing.fileno())
    return changes


def _merged(raw: bytes, tensor: Tensor, a: mx.array, b: mx.array, scale: float) -> tuple[bytes, float]:
    storage, dtype = DTYPES[tensor.dtype]
    with mx.stream(mx.cpu):  # GPUs may take float32 products in reduced precision
        weight = mx.array(np.frombuffer(raw, storage)).view(dtype).reshape(tensor.shape).astype(mx.float32)
        delta = scale * (b.T.astype(mx.float32) @ a.T.astype(mx.float32))
        merged = (weight + delta).astype(dtype).view(mx.uint32 if storage is np.uint32 else mx.uint16)
        change = mx.linalg.norm(delta) / mx.maximum(mx.linalg.norm(weight), 1e-30)
        return np.asarray(merged).tobytes(), scalar(change)
