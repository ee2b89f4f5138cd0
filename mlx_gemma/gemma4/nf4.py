"""NF4, the 4-bit NormalFloat of QLoRA (arXiv 2305.14314, section 3), which MLX has no kernel for.

A block of 64 weights along the input is divided by its largest absolute value, and each quotient becomes the nearest of
16 values: quantiles of a normal distribution, with an exact zero. Two codes lie in a byte, the first in the high half,
as in bitsandbytes; with one float32 scale per block that is 4.5 bits a weight (no double quantisation).

A dense weight exists only while a product is taken, and is made again in the backward pass. What speaks for NF4 is that
others' QLoRA runs use it, not closeness: the relative error of a normal random matrix is 0.092, of affine with 4 bits
and blocks of 64 (as many bits a weight in bfloat16) 0.091. Forward and backward of 64 rows through 1024 x 1024 took
45 ms on MLX's CPU backend, affine 137 ms, dense float32 22 ms; on a GPU, where MLX's own modes have kernels, expect the
opposite order (not measured).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn

BLOCK = 64
# bitsandbytes' table (functional.py, get_4bit_type("nf4")), to its last digit.
CODE_BOOK = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
PAIRS = [(CODE_BOOK[byte >> 4], CODE_BOOK[byte & 15]) for byte in range(256)]  # one look-up gives two weights
# Weights that are dense at one time in a product: 128 MiB in float32. A layer's projection is less than that, a tied
# head is not.
DENSE_AT_ONCE = 2**25
QUANTISED_AT_ONCE = 2**22  # some 20 float32 temporaries each, here and in MLX's own mxfp4 and nvfp4 on a CPU


def pieces(rows: int, columns: int, at_once: int) -> Iterator[slice]:
    """Runs of rows of so many weights, or of one row."""
    step = max(1, at_once // columns)
    return (slice(start, start + step) for start in range(0, rows, step))


def quantise_by_rows(weight: mx.array, quantise: Callable[[mx.array], Sequence[mx.array]]) -> list[mx.array]:
    """What `quantise` makes of a weight [rows, columns], evaluated, a piece of its rows at a time."""
    parts = []
    for rows in pieces(weight.shape[0], weight.shape[1], QUANTISED_AT_ONCE):
        parts.append(quantise(weight[rows]))
        mx.eval(parts[-1])
    whole = [mx.concatenate(list(of_all)) for of_all in zip(*parts, strict=True)] if len(parts) > 1 else list(parts[0])
    mx.eval(whole)
    return whole


def quantise(weight: mx.array) -> tuple[mx.array, mx.array]:
    """Codes (uint8 [rows, columns / 2]) and scales (float32 [rows, columns / 64]) of a weight [rows, columns]."""
    blocks = weight.astype(mx.float32).reshape(weight.shape[0], -1, BLOCK)
    scales = mx.abs(blocks).max(axis=-1)
    quotients = blocks / mx.maximum(scales, 1e-30)[..., None]
    codes = mx.zeros(blocks.shape, mx.uint8)
    for low, high in pairwise(CODE_BOOK):  # nearest: count the midpoints below
        codes = codes + (quotients > (low + high) / 2).astype(mx.uint8)
    codes = codes.reshape(weight.shape)
    return (codes[:, ::2] << 4) | codes[:, 1::2], scales


def dequantise(codes: mx.array, scales: mx.array, dtype: mx.Dtype = mx.float32) -> mx.array:
    """Dense weights [..., columns] of codes [..., columns / 2] and scales [..., columns / 64]; products in float32."""
    values = mx.take(mx.array(PAIRS), codes, axis=0).reshape(*scales.shape, BLOCK)
    return (values * scales[..., None]).reshape(*codes.shape[:-1], -1).astype(dtype)


# The codes wait (mx.depends) for what they are multiplied with. Without that, mx.compile sees the forward's and the
# backward's dequantisation as one expression and keeps the dense weight: 24 layers of 1024 x 1024 took 97 MiB instead
# of 41, as much as with no custom gradient at all (uncompiled 33, and 24 with it; MLX 0.32.4, CPU).
@mx.custom_function
def product(x: mx.array, codes: mx.array, scales: mx.array) -> Any:
    """x [..., columns] @ W.T in x's dtype, [..., rows]; the gradient is that of x only."""
    out: list[mx.array] = []
    for rows in pieces(codes.shape[0], codes.shape[1] * 2, DENSE_AT_ONCE):
        # mx.depends has no forward-mode derivative, and its constant needs none.
        waiting = mx.depends(codes[rows], mx.stop_gradient(out[-1] if out else x))
        out.append(x @ dequantise(waiting, scales[rows], x.dtype).T)
    return mx.concatenate(out, axis=-1) if len(out) > 1 else out[0]


@product.vjp
def _(primals: tuple[mx.array, ...], cotangent: mx.array, _output: mx.array) -> tuple[Any, ...]:
    _, codes, scales = primals
    gradient = None
    for rows in pieces(codes.shape[0], codes.shape[1] * 2, DENSE_AT_ONCE):
        waiting = mx.depends(codes[rows], cotangent if gradient is None else gradient)
        part = cotangent[..., rows] @ dequantise(waiting, scales[rows], cotangent.dtype)
        gradient = part if gradient is None else gradient + part
    return gradient, mx.zeros_like(codes), mx.zeros_like(scales)


@product.jvp
def _product_jvp(primals: tuple[mx.array, ...], tangents: tuple[mx.array | None, ...]) -> Any:
    moved = tangents[0]
    return product(mx.zeros_like(primals[0]) if moved is None else moved, *primals[1:])


class NF4Linear(nn.Module):  # type: ignore[misc]  # mlx has no types here
    """A frozen nn.Linear without bias, in NF4: `weight` uint8 [out, in / 2], `scales` float32 [out, in / 64]."""

    def __init__(self, weight: mx.array) -> None:
        super().__init__()
        self.weight, self.scales = quantise_by_rows(weight, quantise)
        self.freeze()

    def __call__(self, x: mx.array) -> mx.array:
        out: mx.array = product(x, self.weight, self.scales)  # type: ignore[assignment]  # mlx: object
        return out


class NF4Embedding(NF4Linear):
    """A frozen nn.Embedding in NF4. Only the rows that are looked up are ever dense.

    As a tied head each call makes the whole table dense, piece by piece: an affine mode is much faster there.
    """

    def __init__(self, weight: mx.array) -> None:
        super().__init__(weight)
        self.dtype = weight.dtype

    def __call__(self, tokens: mx.array) -> mx.array:
        return dequantise(self.weight[tokens], self.scales[tokens], self.dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        return super().__call__(x)
