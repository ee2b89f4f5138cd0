"""GGUF form of an adapter alone, which llama.cpp puts on a GGUF of the base (`--lora`).

lora_a [rank, in] and lora_b [out, rank] are both the transpose of ours. llama.cpp multiplies their product by alpha /
rank, so alpha is our scale times the rank, whatever the recipe's alpha was (rsLoRA). It tells neither DoRA nor full
training.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Type
from mlx.utils import tree_unflatten

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.adapters import LoRALinear, shape_of
from mlx_gemma.gemma4.load import load
from mlx_gemma.gemma4.lora import PLACES
from mlx_gemma.interop.export import Form, Job
from mlx_gemma.interop.gguf_file import AGAIN, ARCHITECTURE, Stored, read_file, write_file
from mlx_gemma.interop.gguf_meta import describe, tensor_name
from mlx_gemma.interop.merge import Arrays

FILE = "adapter.gguf"
ALPHA = gguf.Keys.Adapter.LORA_ALPHA
REASONS = {  # of targets outside of the layers; measured with llama-cpp-python 0.3.36
    "per_layer_model_proj.weight": "llama.cpp loads it and does not apply it",
    "token_embd.weight": "llama.cpp stops with a failed assertion",
}


def check(job: Job) -> None:
    """Whether a LoRA GGUF can tell this adapter.

    Raises:
        ModelError: it is DoRA's or full training's, or its scale is 0, which llama.cpp takes for 1.
    """
    if job.adapter.kind != "lora":
        name = {"dora": "DoRA", "full": "full training"}[job.adapter.kind]
        what, fix = f"llama.cpp has no adapters of {name}", "--to gguf merges it"
    elif job.adapter.scale == 0:
        what, fix = "its scale is 0, which llama.cpp takes for 1", "train with an alpha above 0"
    else:
        return
    raise ModelError(what, where=job.run, fix=fix)


def write(job: Job, out: Path) -> list[float]:
    """Write `out`/adapter.gguf; nothing is merged."""
    kind = Type[job.dtype or "F32"]
    layers = 1 + max(int(place.split(".")[1]) for place in job.adapter.arrays)
    stored = []
    for place, arrays in job.adapter.arrays.items():
        stem = tensor_name(f"{place}.weight", layers)
        if stem is None:
            raise ModelError(f"GGUF has no name for {place}", where=job.run, fix="--to gguf merges it")
        stored += [_stored(f"{stem}.{leaf}", arrays[leaf], kind) for leaf in ("lora_a", "lora_b")]
    rank = next(iter(job.adapter.arrays.values()))["lora_b"].shape[0]
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(ALPHA, job.adapter.scale * rank)
    size = sum(value.size for arrays in job.adapter.arrays.values() for value in arrays.values())
    describe(job, size).set_gguf_meta_model(writer)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_file(writer, out / FILE, stored)
    return []


def _stored(name: str, value: mx.array, kind: Type) -> Stored:
    def data() -> Iterator[bytes]:
        yield np.ascontiguousarray(gguf.quants.quantize(np.asarray(value.astype(mx.float32)).T, kind)).tobytes()

    return Stored(name, kind, value.shape[::-1], data)


def read_adapter(path: Path) -> tuple[dict[str, Arrays], float]:
    """An adapter GGUF's arrays by place (`layers.3.mlp.up_proj`), float32 as `merge.Adapter` has them, and its scale.

    Raises:
        ModelError: no LoRA GGUF of a Gemma 4, a factor is missing or misshapen, or it is of a target that llama.cpp
            does not apply.
    """
    file = read_file(path)
    if (found := file.metadata.get("general.type")) != "adapter":
        raise ModelError(f"a GGUF that holds a {found or 'model'}", where=path, fix="give an adapter's")
    if (found := file.metadata.get(gguf.Keys.Adapter.TYPE)) != "lora":
        raise ModelError(f"an adapter of type {found}", where=path, fix="give a LoRA adapter's")
    factors: dict[str, Arrays] = {}
    for name in file.tensors:
        stem, _, leaf = name.rpartition(".")
        if stem in REASONS:
            raise ModelError(f"an adapter of {stem}: {REASONS[stem]}", where=path, fix="merge it, or train without it")
        factors.setdefault(stem, {})[leaf] = file.array(name, mx.float32).T
    places = _places(factors)
    for stem, arrays in factors.items():
        whole = set(arrays) == {"lora_a", "lora_b"} and all(value.ndim == 2 for value in arrays.values())
        if stem not in places or not whole or arrays["lora_a"].shape[1] != arrays["lora_b"].shape[0]:
            raise ModelError(f"tensors of {stem} are no pair of factors of a decoder layer", where=path, fix=AGAIN)
    alpha, ranks = file.metadata.get(ALPHA, 0.0), {arrays["lora_b"].shape[0] for arrays in factors.values()}
    if len(ranks) != 1:
        raise ModelError(f"its modules are of {len(ranks)} ranks", where=path, fix="give one with the same for all")
    return {places[stem]: arrays for stem, arrays in factors.items()}, alpha / ranks.pop() if alpha else 1.0


def _places(stems: dict[str, Arrays]) -> dict[str, str]:
    """The places of GGUF's names of layers' weights: `layers.3.mlp.up_proj` of `blk.3.ffn_up.weight`."""
    numbers = {int(m[1]) for stem in stems if (m := re.match(r"blk\.(\d{1,3})\.", stem))}
    places = [f"layers.{n}.{part}" for n in numbers for part in PLACES.values()]
    return {tensor_name(f"{p}.weight", max(numbers) + 1) or "": p for p in places}


def attach(text: Any, arrays: dict[str, Arrays], scale: float, where: Path) -> None:
    """Put an adapter on mlx-lm's text decoder, frozen.

    Raises:
        ModelError: the model has no such module, or one of another size.
    """
    for place, given in arrays.items():
        _, number, inside = place.split(".", 2)
        held = dict(text.layers[int(number)].named_modules()) if int(number) < len(text.layers) else {}
        a, b = given["lora_a"], given["lora_b"]
        if inside not in held or shape_of(held[inside]) != (b.shape[1], a.shape[0]):
            raise ModelError(f"{place} is not this model's", where=where, fix="give the base that it was trained on")
        adapted = LoRALinear(held[inside], a.shape[1], scale)
        adapted.lora_a, adapted.lora_b = a, b
        text.layers[int(number)].update_modules(tree_unflatten([(inside, adapted)]))
    text.freeze()
    text.eval()


def read(job: Job, out: Path) -> Any:
    """The source with the adapter that was written."""
    text = load(job.source.name, revision=job.source.revision).text
    attach(text, *read_adapter(out / FILE), where=out / FILE)
    return text


FORM = Form(FILE, write, read, check, dtypes=("F32", "F16"), file=True)
