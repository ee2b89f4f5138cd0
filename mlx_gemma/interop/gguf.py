"""GGUF form: the text decoder with the adapter in its weights, and the tokenizer, in one file for llama.cpp.

Metadata, tensor names and types are those that llama.cpp's own converter writes, but for K/V tensors of K/V-shared
layers, which nothing reads and which are left out. RMSNorm weights and Q/K rows are as in the source: Gemma 4 needs
neither the +1 nor the permutation of other models.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Type
from mlx.utils import tree_flatten
from mlx_lm.models import gemma4_text

from mlx_gemma import platform
from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.gemma4.load import complete_config
from mlx_gemma.gemma4.names import place
from mlx_gemma.interop import hf
from mlx_gemma.interop.export import Form, Job
from mlx_gemma.interop.gguf_file import AGAIN, ARCHITECTURE, Stored, read_file, write_file
from mlx_gemma.interop.gguf_meta import (
    INSTEAD,
    ROPE_FREQS,
    STILL,
    add_tokenizer,
    describe,
    read_structure,
    tensor_name,
    write_structure,
)
from mlx_gemma.interop.merge import Rounding
from mlx_gemma.interop.stream import FLOATS, Piece, pieces, weight_files

FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}
FILE = "model.gguf"


def check(job: Job) -> None:
    """Whether llama.cpp computes this decoder.

    Raises:
        ModelError: it is of another structure than E2B's and E4B's, or one that llama.cpp would compute otherwise.
    """
    source = job.source
    try:
        args = model_args(source)
        what = _unsupported(args) or _kv_elsewhere(args)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as e:
        raise ModelError(f"config.json makes no model: {e!r}", where=source.name, fix="download it again") from e
    odd = {p.tensor.dtype for p in _decoder(job, args)} - set(FLOATS)
    if what or odd:
        raise ModelError(what or f"the decoder holds tensors of type {min(odd)}", where=source.name, fix=INSTEAD)


def model_args(source: Checkpoint) -> Any:
    """mlx-lm's ModelArgs of a checkpoint's text decoder, the ones that it is loaded with here."""
    config = complete_config(source.config)
    return gemma4_text.ModelArgs.from_dict(config.get("text_config", config))


def _unsupported(args: Any) -> str | None:
    odd = args.enable_moe_block or args.attention_k_eq_v or not args.hidden_size_per_layer_input
    if odd or not args.tie_word_embeddings:
        return "this Gemma 4 has experts, keys that are values, no per-layer embeddings or a head of its own"
    for kind, rope in (("full_attention", "proportional"), ("sliding_attention", "default")):
        if (found := args.rope_parameters[kind].get("rope_type")) != rope:
            return f"llama.cpp has no RoPE of type {found} for {kind}"
    return None


def _kv_elsewhere(args: Any) -> str | None:
    """llama.cpp hard-codes the source of shared K/V: the last layers that have their own are [sliding, full]."""
    own, kinds = args.num_hidden_layers - args.num_kv_shared_layers, args.layer_types
    for layer in range(own, args.num_hidden_layers):
        ours = max(i for i in range(own) if kinds[i] == kinds[layer])
        theirs = own - (2 if kinds[layer] == "sliding_attention" else 1)
        if ours != theirs:
            return f"layer {layer} takes its K/V from layer {ours}, and llama.cpp would take them from {theirs}"
    return None


def write(job: Job, out: Path) -> list[float]:
    """Write `out`/model.gguf; memory for one merged matrix or one block, and the tokenizer (about 1 GB)."""
    args = model_args(job.source)
    merged = _decoder(job, args)
    stored = [_rope_freqs(args), *(_stored(p, job, args.num_hidden_layers) for p in merged)]
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    writer.add_type(gguf.GGUFType.MODEL)
    size = sum(math.prod(s.shape) for s in stored)
    describe(job, size).set_gguf_meta_model(writer)
    write_structure(writer, args)
    types = Counter(s.type.name for s in stored if len(s.shape) > 1)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[job.dtype or types.most_common(1)[0][0]]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    held = next(s.shape[0] for s in stored if s.name == "token_embd.weight")
    if (count := add_tokenizer(writer, job.source.folder)) != held:
        what = f"the tokenizer has {count} tokens, the embeddings {held} rows: llama.cpp wants the same number"
        raise ModelError(what, where=job.source.name, fix=INSTEAD)
    write_file(writer, out / FILE, stored)
    return [p.change for p in merged if p.change is not None]


def read_model(path: Path) -> Any:
    """The text decoder (mlx-lm's gemma4_text.Model) in a GGUF file, evaluated, from nothing but the file.

    In the platform's compute dtype; where that is the checkpoint's own: float32 of an F32 file, bfloat16 of every other
    (Gemma's activations overflow float16).

    Raises:
        ModelError: no GGUF of E2B's or E4B's structure, or a tensor is missing, misshapen, unknown, or of a type that
            gguf cannot dequantise.

    Cost: the decoder's weights in memory, beside the largest tensor once more.
    """
    file = read_file(path)
    args = read_structure(file)
    coarse = any(t.type != Type.F32 for t in file.tensors.values())
    dtype = _computed(coarse)
    try:
        model = gemma4_text.Model(args)
        shapes = {name: value.shape for name, value in tree_flatten(model.parameters())}
    except (TypeError, ValueError, LookupError, ArithmeticError) as e:
        raise ModelError(f"its metadata makes no model: {e!r}", where=path, fix=AGAIN) from e
    names = {name: tensor_name(name.removeprefix("model."), args.num_hidden_layers) or name for name in shapes}
    lost = sorted(set(names.values()) - set(file.tensors))
    dead = (".attn_k.weight", ".attn_v.weight", ".attn_k_norm.weight")  # of K/V-shared layers, as Google ships them
    foreign = [n for n in file.tensors if n not in names.values() and n != ROPE_FREQS and not n.endswith(dead)]
    for found, what in ((lost, "missing"), (foreign, "unknown")):
        if found:
            raise ModelError(f"{len(found)} tensors are {what}, for example {found[0]}", where=path, fix=AGAIN)
    order = sorted(shapes, key=lambda name: -file.tensors[names[name]].size)  # the largest while memory is free
    for name in order:
        if file.tensors[names[name]].shape != shapes[name]:
            what = f"{names[name]} is {list(file.tensors[names[name]].shape)} where {list(shapes[name])} is needed"
            raise ModelError(what, where=path, fix=AGAIN)
        model.load_weights([(name, file.array(names[name], dtype))], strict=False)
    model.eval()
    return model


def _computed(coarse: bool) -> mx.Dtype:
    return platform.compute_dtype() or (mx.bfloat16 if coarse else mx.float32)


def _rope_freqs(args: Any) -> Stored:
    factor = args.rope_parameters["full_attention"].get("partial_rotary_factor", 1.0)
    half, turned = args.global_head_dim // 2, int(args.global_head_dim * factor / 2)
    values = np.array([1.0] * turned + [STILL] * (half - turned), np.float32)
    return Stored(ROPE_FREQS, Type.F32, (half,), lambda: iter([values.tobytes()]))


def _decoder(job: Job, args: Any) -> list[Piece]:
    """The text decoder's tensors; not the K/V ones of K/V-shared layers, which Google ships and nothing reads."""
    own = args.num_hidden_layers - args.num_kv_shared_layers
    dead = re.compile(r"layers\.(\d+)\.self_attn\.(?:k_proj|v_proj|k_norm)\..*")
    found = [p for file in weight_files(job.source) for p in pieces(file, job.adapter)]
    inside = [(p, place(p.name)) for p in found]
    return [p for p, name in inside if name and not ((m := dead.fullmatch(name)) and int(m[1]) >= own)]


def _stored(piece: Piece, job: Job, layers: int) -> Stored:
    inside, shape = place(piece.name) or "", piece.tensor.shape or (1,)
    name = tensor_name(inside, layers)
    if name is None:
        raise ModelError(f"GGUF has no name for {piece.name}", where=piece.file, fix=INSTEAD)
    dtype = _type(shape, job.dtype or piece.tensor.dtype)
    data = (lambda: _q8_0(piece)) if dtype == "Q8_0" else (lambda: piece.data(dtype))
    return Stored(name, Type[dtype], shape, data)


def _type(shape: tuple[int, ...], dtype: str) -> str:
    if len(shape) == 1:
        return "F32"
    odd = dtype == "Q8_0" and shape[-1] % gguf.GGML_QUANT_SIZES[Type.Q8_0][0]
    return "F16" if odd else dtype


def rounding(job: Job) -> Rounding:
    """The type of the file, and then the one that `read_model` computes in."""
    held = hf.dtypes(replace(job, dtype=None))
    coarse = ({job.dtype} if job.dtype else set(held.values())) != {"F32"}
    dtype = _computed(coarse)

    def rounded(name: str, block: mx.array) -> mx.array:
        type_ = Type[_type(block.shape, job.dtype or held[name])]
        data = gguf.quants.quantize(np.asarray(block), type_)
        return mx.array(gguf.quants.dequantize(data, type_)).astype(dtype)

    return rounded


def _q8_0(piece: Piece) -> Iterator[bytes]:
    for block in piece.blocks():
        yield gguf.quants.quantize(np.asarray(block), Type.Q8_0).tobytes()


def read(job: Job, out: Path) -> Any:
    return read_model(out / FILE)


FORM = Form(FILE, write, read, check, dtypes=tuple(FILE_TYPES), file=True, rounding=rounding)
