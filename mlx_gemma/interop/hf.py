"""Hugging Face form: the source checkpoint again, with the adapter in its weights.

The adapter is grafted into the source's own files, so class, tensor names, shards, towers, dead K/V tensors, tokenizer,
template and configs are the source's, and transformers loads the result as it loads the source. (A folder in mlx-lm's
own naming, as mlx_lm.fuse writes it, is loaded by transformers with random weights and no error.) `text_only` takes the
text decoder out of a multimodal checkpoint, as Gemma4ForCausalLM.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_gemma import platform
from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import headers
from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.gemma4.load import load
from mlx_gemma.gemma4.names import place
from mlx_gemma.interop.export import Form, Job
from mlx_gemma.interop.merge import Rounding
from mlx_gemma.interop.stream import FLOATS, Group, Piece, pieces, weight_files, write_safetensors
from mlx_gemma.run import write_json

KEPT = ("*.json", "*.jinja", "*.model")  # a README or licence text would speak of another model
INDEX = "model.safetensors.index.json"
NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
TOP_LEVEL = ("bos_token_id", "eos_token_id", "pad_token_id")  # of a multimodal config: what its text_config may lack


def check(job: Job) -> None:
    """Whether transformers would load what is written.

    Raises:
        ModelError: the base has mlx-lm's names, which transformers loads with random weights and no error (T28).
    """
    if job.text_only:
        return
    names = [name for file in weight_files(job.source) for name in headers.tensors(file)]
    if foreign := next((name for name in names if name.startswith("language_model.")), None):
        what = (
            f"the base is in mlx-lm's names ({foreign}), and so would be the result, which transformers does not load"
        )
        raise ModelError(what, where=job.source.name, fix="add --text-only, or give the original checkpoint (--base)")


def write(job: Job, out: Path) -> list[float]:
    """Fill `out`, a shard for each of the source's; memory for one merged matrix."""
    return write_shards(job, out, lambda piece, name: piece.stored(name, _dtype(piece.tensor, job)))


def write_shards(job: Job, out: Path, stored: Callable[[Piece, str], Group]) -> list[float]:
    """Every shard of the source, the tensors in it as `stored` has them, and the files beside them."""
    changes: list[float] = []
    where: dict[str, str] = {}
    size = 0
    for file in weight_files(job.source):
        chosen = [(p, name) for p in pieces(file, job.adapter) if (name := _name(p, job))]
        groups = [stored(p, name) for p, name in chosen]
        if groups:
            write_safetensors(out / file.name, groups, headers.metadata(file))
        changes += [p.change for p, _ in chosen if p.change is not None]
        for entry in (e for group in groups for e in group.entries):
            where[entry.name] = file.name
            size += entry.size
    for side in {p for pattern in KEPT for p in job.source.folder.glob(pattern) if p.is_file()}:
        shutil.copyfile(side, out / side.name)
    if job.text_only or job.dtype:
        write_json(out / "config.json", config(job.source, job.text_only, job.dtype))
        if (out / INDEX).exists():
            write_json(out / INDEX, {"metadata": {"total_size": size}, "weight_map": where})
    return changes


def config(source: Checkpoint, text_only: bool, dtype: str | None) -> dict[str, Any]:
    """config.json of the text decoder alone or of the whole, in another dtype or its own."""
    found = json.loads(json.dumps(source.config))
    if text_only and "text_config" in found:
        top = {key: found[key] for key in TOP_LEVEL if found.get(key) is not None}
        kept = {key: found[key] for key in ("dtype", "transformers_version") if key in found}
        architecture = {"architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text"}
        found = kept | found["text_config"] | top | architecture
    if dtype:
        for part in (found, *(v for v in found.values() if isinstance(v, dict) and "dtype" in v)):
            part["dtype"] = NAMES[dtype]
    return dict(found)


def rounding(job: Job) -> Rounding:
    """The dtype of the file, and then the one that is computed in."""
    held = dtypes(job)

    def rounded(name: str, block: mx.array) -> mx.array:
        stored = FLOATS[held[name]][1]
        return block.astype(stored).astype(platform.compute_dtype() or stored)

    return rounded


def dtypes(job: Job) -> dict[str, str]:
    """Of every tensor of the decoder in the export, by `layers.3.mlp.up_proj.weight`."""
    found = {n: t for file in weight_files(job.source) for n, t in headers.tensors(file).items()}
    return {inside: _dtype(t, job) for name, t in found.items() if (inside := place(name))}


def _name(piece: Piece, job: Job) -> str | None:
    """In the exported file; None for what is left out."""
    inside = place(piece.name)
    return f"model.{inside}" if job.text_only and inside else None if job.text_only else piece.name


def _dtype(tensor: headers.Tensor, job: Job) -> str:
    return job.dtype if job.dtype and tensor.dtype in FLOATS else tensor.dtype


def read(job: Job, out: Path) -> Any:
    return load(str(out)).text


FORM = Form("hf", write, read, check, dtypes=tuple(FLOATS), text_only=True, rounding=rounding)
