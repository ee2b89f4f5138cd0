"""What weights are stored in, and how far rounding to it may move what a model computes.

Measured: worst mean logit difference in standard deviations of the logits, and worst KL in nats, of merged exports
against their runs, on random models of E2B's structure, narrow and wide, from float32 and bfloat16 (ill conditioned: a
trained model, nano, moves less), each with two adapters that move the logits by 0.3 to 0.7:

    F32  2e-6,   3e-12  8 bits (Q8_0, affine8) 0.054, 4.6e-3     4 bits: affine4 0.53, 0.25
    F16  2.2e-3, 1.1e-5 6 bits (affine6) 0.16, 0.025                     nvfp4   0.53, 0.25
    BF16 0.016,  4.0e-4 mxfp8 (3 bits of mantissa) 0.17, 0.028           mxfp4   0.61, 0.33

Accepted is about twice the mean and four times the KL. Not of 4 bits: models that have nothing to do with each other
differ by 1.1, and a base from an affine4 export of its adapter by 0.77, 0.53 in KL.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.gemma4.headers import tensors
from mlx_gemma.gemma4.names import layer_place
from mlx_gemma.interop import gguf_file
from mlx_gemma.interop.stream import weight_files


class Bound(NamedTuple):
    """What is accepted. `mean`: logit difference, in standard deviations of the logits; `kl`: in nats."""

    mean: float
    kl: float


BOUNDS = {
    "F32": Bound(1e-4, 1e-7),
    "F16": Bound(5e-3, 5e-5),
    "BF16": Bound(0.04, 2e-3),
    "8 bits": Bound(0.11, 0.018),
    "mxfp8": Bound(0.35, 0.12),
    "6 bits": Bound(0.35, 0.12),
    "4 bits": Bound(0.7, 0.42),
}
QUANTISED = "quantised"  # to nobody knows how many bits


def bound(precision: str) -> Bound:
    """Of a precision by its name, else by the first number in it, its bits; the coarsest where there is none."""
    if precision in BOUNDS:
        return BOUNDS[precision]
    found = re.search(r"\d+", precision)
    bits = int(found[0]) if found else 0
    coarser = (name for least, name in ((32, "F32"), (16, "BF16"), (8, "8 bits"), (6, "6 bits")) if bits >= least)
    return BOUNDS[next(coarser, "4 bits")]


def coarsest(precisions: Iterable[str]) -> str:
    return max(precisions, key=lambda name: bound(name).mean)


def of_checkpoint(source: Checkpoint) -> str:
    """What most of the decoder's matrices are stored in: F32, F16, BF16, affine4, mxfp8, `3 bits` …"""
    for config in (source.config, source.text_config):
        for key in ("quantization", "quantization_config"):
            if isinstance(config.get(key), dict):
                return _quantised(config[key])
    held = (t for file in weight_files(source) for name, t in tensors(file).items() if layer_place(name))
    return _most(t.dtype for t in held if len(t.shape) > 1)


def of_safetensors(file: Path) -> str:
    return _most(t.dtype for t in tensors(file).values() if len(t.shape) > 1)


def of_gguf(file: Path) -> str:
    return _most(t.type.name for t in gguf_file.read_file(file).tensors.values() if len(t.shape) > 1)


def is_quantised(precision: str) -> bool:
    return precision not in ("F32", "F16", "BF16")


def _quantised(config: dict[str, Any]) -> str:
    bits, mode = config.get("bits"), config.get("mode", "affine" if "group_size" in config else None)
    if not isinstance(bits, int):
        return QUANTISED
    return f"{bits} bits" if mode is None else mode if str(mode).endswith(str(bits)) else f"{mode}{bits}"


def _most(precisions: Iterable[str]) -> str:
    counted = Counter(precisions).most_common(1)
    return str(counted[0][0]) if counted else QUANTISED
