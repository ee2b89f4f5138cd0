"""mlx-lm's form: the text decoder with the adapter in it, one folder for mlx_lm and LM Studio, quantised or not.

The text-only class (`gemma4_text`), because mlx-lm computes text only; a folder of --to hf is loaded by mlx-lm as well.
What is quantised is what training quantises: the layers' projections and the two embeddings, in modes that mlx-lm
reads. The per-layer-input projections stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_gemma import platform
from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.load import complete_config, load
from mlx_gemma.gemma4.names import place
from mlx_gemma.gemma4.quantise import EMBEDDINGS, MODES, PROJECTIONS, Mode
from mlx_gemma.interop import hf
from mlx_gemma.interop.export import Form, Job
from mlx_gemma.interop.merge import Rounding
from mlx_gemma.interop.stream import FLOATS, Entry, Group, Piece, pieces, weight_files
from mlx_gemma.run import write_json

QUANTISATIONS = tuple(mode for mode in MODES if mode != "nf4")  # which mlx-lm does not know
PACKED = 32  # mlx-lm makes no layer of other widths, whatever nvfp4's group
SMALL = {name for names in PROJECTIONS.values() for name in names} | set(EMBEDDINGS)
DTYPES = {mx.uint32: "U32", mx.uint8: "U8", mx.float32: "F32", mx.bfloat16: "BF16", mx.float16: "F16"}


def check(job: Job) -> None:
    """Whether the mode divides every width.

    Raises:
        ModelError: it does not; names the modes that do.
    """
    if job.quantize is None:
        return
    widths = {
        p.tensor.shape[1] for file in weight_files(job.source) for p in pieces(file, None) if _is_small(place(p.name))
    }
    multiple = {mode: max(MODES[mode].group, PACKED) for mode in QUANTISATIONS}
    if any(width % multiple[job.quantize] for width in widths):
        fits = [mode for mode in QUANTISATIONS if not any(width % multiple[mode] for width in widths)]
        what = f"{job.quantize} needs widths that are multiples of {multiple[job.quantize]}, these are {sorted(widths)}"
        raise ModelError(what, where=job.source.name, fix=f"possible for it: {', '.join(fits) or 'none'}")


def write(job: Job, out: Path) -> list[float]:
    """Fill `out`; memory for one merged matrix, or one block."""
    job = replace(job, text_only=True)
    changes = hf.write_shards(job, out, lambda piece, name: _stored(piece, name, job))
    config = complete_config(hf.config(job.source, True, job.dtype))
    if job.quantize:
        mode = MODES[job.quantize]
        quantization = {"group_size": mode.group, "bits": mode.bits, "mode": mode.name}
        config |= {"quantization": quantization, "quantization_config": quantization}
    write_json(out / "config.json", config)
    return changes


def _is_small(inside: str | None) -> bool:
    return inside is not None and inside.endswith(".weight") and inside.split(".")[-2] in SMALL


def _stored(piece: Piece, name: str, job: Job) -> Group:
    dtype = job.dtype or piece.tensor.dtype
    if job.quantize is None or not _is_small(place(piece.name)):
        return piece.stored(name, dtype)
    mode = MODES[job.quantize]

    def parts() -> Iterator[tuple[bytes, ...]]:
        for block in piece.blocks():
            yield tuple(_bytes(array) for array in _quantised(block, mode, dtype))

    rows, width = piece.tensor.shape
    one = _quantised(mx.zeros((1, width)), mode, dtype)  # what a row becomes
    stem = name.removesuffix("weight")
    entries = tuple(
        Entry(stem + leaf, DTYPES[array.dtype], (rows, array.shape[1]), rows * array.nbytes)
        for leaf, array in zip(("weight", "scales", "biases"), one, strict=False)
    )
    return Group(entries, parts)


def _quantised(block: mx.array, mode: Mode, dtype: str) -> list[mx.array]:
    return list(mx.quantize(block.astype(FLOATS[dtype][1]), mode.group, mode.bits, mode=mode.name))


def rounding(job: Job) -> Rounding:
    """As `hf.rounding`; what is quantised, dequantised again."""
    plain = hf.rounding(job)
    if job.quantize is None:
        return plain
    mode, held = MODES[job.quantize], hf.dtypes(job)

    def rounded(name: str, block: mx.array) -> mx.array:
        if not _is_small(name):
            return plain(name, block)
        wide = platform.compute_dtype() or FLOATS[held[name]][1]
        weight, scales, *rest = _quantised(block, mode, held[name])
        biases = rest[0].astype(wide) if rest else None  # affine modes have them, and scales of the same dtype
        scales = scales.astype(wide) if rest else scales
        return mx.dequantize(weight, scales, biases, mode.group, mode.bits, mode.name, dtype=wide)

    return rounded


def _bytes(array: mx.array) -> bytes:
    return np.asarray(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array).tobytes()


def read(job: Job, out: Path) -> Any:
    return load(str(out)).text


def quantised_base(job: Job) -> Any:
    """The base alone, quantised in memory as the export is."""
    source, mode = job.source, job.quantize
    return load(source.name, revision=source.revision, quantize=mode, quantize_embeddings=mode).text


FORM = Form("mlx", write, read, check, tuple(FLOATS), QUANTISATIONS, rounding=rounding, quantised_base=quantised_base)
