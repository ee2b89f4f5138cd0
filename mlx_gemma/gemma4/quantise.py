"""A base in fewer bits, made in memory while it is loaded: QLoRA, and frozen embeddings that cost less.

Only what is large and robust is quantised: the seven projections of the decoder's layers, and on request the two
embedding tables. The per-layer-input projections and the norms are small and sensitive and stay as they are (exllamav3,
pull request 253).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import nf4


class Mode(NamedTuple):
    """How MLX names it, and how many weights along the input share a scale."""

    name: str
    bits: int
    group: int


MODES = {
    "affine4": Mode("affine", 4, 64),
    "affine6": Mode("affine", 6, 64),
    "affine8": Mode("affine", 8, 64),
    "mxfp4": Mode("mxfp4", 4, 32),
    "nvfp4": Mode("nvfp4", 4, 16),
    "mxfp8": Mode("mxfp8", 8, 32),
    "nf4": Mode("nf4", 4, nf4.BLOCK),
}
PROJECTIONS = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}
EMBEDDINGS = ("embed_tokens", "embed_tokens_per_layer")


class QuantisedEmbedding(nn.QuantizedEmbedding):  # type: ignore[misc]  # mlx has no types here
    """nn.QuantizedEmbedding that answers in the dense table's dtype.

    In the mx and nv modes MLX's always gives bfloat16, in which a float32 model would then compute.
    """

    dtype = mx.float32

    def __call__(self, tokens: mx.array) -> mx.array:
        out: mx.array = super().__call__(tokens).astype(self.dtype)
        return out


def quantise(model: nn.Module, projections: str = "none", embeddings: str = "none", *, where: str = "") -> None:
    """Replace weights, one after another, by their form in fewer bits; what is replaced is let go.

    Args:
        model: mlx-lm's Gemma 4, in the dtype it computes in; lazily loaded weights are read as they are needed.
        projections: a key of MODES, or none.
        embeddings: the same, of the token embedding (and the head tied to it) and the per-layer embedding.
        where: the model's name, for messages.

    Raises:
        ModelError: an unknown mode, a base that is quantised already, or a width that is no multiple of the mode's
            group. Nothing is changed then.

    Cost: memory for the result and the largest weight (and what it was cast from after loading, on a CPU), and twenty
    times nf4.QUANTISED_AT_ONCE weights at most; a pass over the weights.
    """
    jobs = _jobs(model, projections, embeddings)
    for path, parent, name, mode in jobs:
        _check(path, parent[name], mode, where)
    for _, parent, name, mode in jobs:
        parent[name] = _small(parent[name], mode)
        mx.clear_cache()  # or the dense weights' buffers would stay with the allocator


def bytes_after(model: nn.Module, projections: str = "none", embeddings: str = "none") -> int:
    """Bytes of the model's weights once `quantise` is done; nothing is computed."""
    total: int = sum(v.nbytes for _, v in tree_flatten(model.parameters()))
    for _, parent, name, mode in _jobs(model, projections, embeddings):
        if mode in MODES and isinstance(parent[name], nn.Linear | nn.Embedding):
            weight = parent[name].weight
            total += int(weight.size * (MODES[mode].bits / 8 + weight.dtype.size / MODES[mode].group)) - weight.nbytes
    return total


def _jobs(model: nn.Module, projections: str, embeddings: str) -> list[tuple[str, Any, str, str]]:
    """(path, parent, name, mode) of every module that is to be replaced."""
    text = getattr(model, "language_model", model).model
    jobs: list[tuple[str, Any, str, str]] = []
    if projections != "none":
        for i, layer in enumerate(text.layers):
            for part, names in PROJECTIONS.items():
                held = [name for name in names if name in layer[part]]
                jobs += [(f"layers.{i}.{part}.{name}", layer[part], name, projections) for name in held]
    if embeddings != "none":
        jobs += [(name, text, name, embeddings) for name in EMBEDDINGS if isinstance(text.get(name), nn.Module)]
    return jobs


def _check(path: str, module: nn.Module, mode: str, where: str) -> None:
    if mode not in MODES:
        raise ModelError(f"no quantisation is called {mode!r}", where=where, fix=f"choose from {', '.join(MODES)}")
    if not isinstance(module, (nn.Linear, nn.Embedding)):
        fix = "give its full-precision checkpoint, or leave model.quantize and quantize_embeddings out"
        raise ModelError("the base is quantised already", where=where, fix=fix)
    group, width = MODES[mode].group, module.weight.shape[1]
    if width % group:
        fits = ", ".join(k for k, m in MODES.items() if width % m.group == 0) or "none"
        what = f"{path} is {width} wide, and {mode} needs a multiple of {group}"
        raise ModelError(what, where=where, fix=f"possible for it: {fits}")


def _small(module: nn.Module, mode: str) -> nn.Module:
    name, bits, group = MODES[mode]
    weight, embedding = module.weight, isinstance(module, nn.Embedding)
    if name == "nf4":
        return (nf4.NF4Embedding if embedding else nf4.NF4Linear)(weight)
    rows, width = weight.shape
    if embedding:
        small = QuantisedEmbedding(rows, width, group, bits, mode=name)
        small.dtype = weight.dtype
    else:
        small = nn.QuantizedLinear(width, rows, False, group, bits, mode=name)  # its random weight is never evaluated
    arrays = nf4.quantise_by_rows(weight, lambda piece: mx.quantize(piece, group, bits, mode=name))
    small.update(dict(zip(("weight", "scales", "biases"), arrays, strict=False)))
    return small
