"""Adapter layers: a frozen linear layer of any kind, and a small trained change to it.

Parameters are named as mlx-lm names them (`linear.*`, `lora_a`, `lora_b`, `m`), so mlx-lm loads the files. The layers
are our own because mlx-lm's widen a bfloat16 input to float32 for every adapter and keep that copy (about a third of
the activations kept for the backward pass), draw dropout from global state, which a recomputation does not repeat, and
get the input width of a 3-, 5- or 6-bit base wrong in DoRA.
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_gemma.gemma4 import nf4


def shape_of(linear: Any) -> tuple[int, int]:
    """(out, in) of nn.Linear, nn.QuantizedLinear or NF4Linear; a packed weight is narrower than its input."""
    out, width = linear.weight.shape
    if isinstance(linear, nf4.NF4Linear):
        return out, width * 2
    return out, width * 32 // linear.bits if isinstance(linear, nn.QuantizedLinear) else width


def dense(linear: Any) -> mx.array:
    """The weight [out, in] as it computes, dequantised where it is not dense."""
    if isinstance(linear, nf4.NF4Linear):
        return nf4.dequantise(linear.weight, linear.scales)
    if isinstance(linear, nn.QuantizedLinear):
        return mx.dequantize(
            linear.weight, linear.scales, linear.get("biases"), linear.group_size, linear.bits, linear.mode
        )
    weight: mx.array = linear.weight
    return weight


class LoRALinear(nn.Module):  # type: ignore[misc]  # mlx has no types here
    """y = linear(x) + scale * (dropout(x) @ lora_a) @ lora_b, computed in x's dtype (arXiv 2106.09685).

    `lora_a` [in, rank] and `lora_b` [rank, out] are float32, drawn as PEFT and mlx-lm draw them: lora_a uniform within
    in ** -0.5, lora_b zero, so a fresh adapter changes nothing.
    """

    def __init__(self, linear: nn.Module, rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        out, width = shape_of(linear)
        self.linear = linear
        self.scale, self.dropout = scale, dropout
        bound = 1 / math.sqrt(width)
        self.lora_a = mx.random.uniform(-bound, bound, (width, rank))
        self.lora_b = mx.zeros((rank, out))
        self.set_key(None)
        self.train(linear.training)

    def set_key(self, key: mx.array | None) -> None:
        """The key that the next calls draw their dropout with: the same key, the same mask.

        Kept out of the module's own dictionary: as an entry of it, a key traced by mx.compile would come back to
        whoever evaluates or compiles over the module's state.
        """
        # A checkpointed function is asked for the gradient of every argument, a key too, and random bits have none.
        object.__setattr__(self, "_key", None if key is None else mx.stop_gradient(key))

    def __call__(self, x: mx.array) -> mx.array:
        out: mx.array = self.linear(x) + self._change(self._dropped(x))
        return out

    def _change(self, x: mx.array) -> mx.array:
        out: mx.array = (self.scale * (x @ self.lora_a.astype(x.dtype))) @ self.lora_b.astype(x.dtype)
        return out

    def _dropped(self, x: mx.array) -> mx.array:
        if not self.training or self.dropout == 0:
            return x
        if self._key is None:
            raise AssertionError("dropout without a key: call lora.set_dropout_key first")
        kept = mx.random.bernoulli(1 - self.dropout, x.shape, key=self._key)
        return mx.where(kept, x * (1 / (1 - self.dropout)), mx.array(0, x.dtype))


class DoRALinear(LoRALinear):
    """The direction of W + scale * B A, its rows of trained length `m` [out], float32 (arXiv 2402.09353).

    As in PEFT, a row's own length is a constant in the backward pass (the paper's section 4.3), and with dropout what
    `m` scales is of the dropped input too. Float32 results differ from PEFT's by rounding only.

    Cost: beside LoRA's, one more product with the base for rank rows, and with dropout another for x. The dense
    W + scale * B A is never made: the squared length of a row is |W|^2 + 2 scale (W A^T) . B + scale^2 |B A|^2, where
    |W|^2 is taken once, here, so the base's weight must not change afterwards.
    """

    def __init__(self, linear: nn.Module, rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__(linear, rank, scale, dropout)
        self.m = mx.linalg.norm(dense(linear).astype(mx.float32), axis=1)
        self._squares = mx.square(self.m)
        mx.eval(self._squares)  # before the next layer's dense weight is made

    def __call__(self, x: mx.array) -> mx.array:
        dropped = self._dropped(x)
        out = self.linear(x)
        base = self._without_bias(out if dropped is x else self.linear(dropped))
        change = self._change(dropped)
        # Less one: in bfloat16, m / length itself would move in steps of 1/256 only.
        stretch = (self.m / self._lengths(x.dtype) - 1).astype(x.dtype)
        result: mx.array = out + change + stretch * (base + change)
        return result

    def _without_bias(self, y: mx.array) -> mx.array:
        return y - self.linear.bias if "bias" in self.linear else y

    def _lengths(self, dtype: mx.Dtype) -> mx.array:
        """Of the rows of W + scale * B A, float32 [out], no gradient."""
        a, b = mx.stop_gradient(self.lora_a), mx.stop_gradient(self.lora_b)
        across = self._without_bias(self.linear(a.T.astype(dtype))).astype(mx.float32)  # [rank, out]
        squares = self._squares + (b * (2 * self.scale * across + self.scale**2 * (a.T @ a @ b))).sum(axis=0)
        return mx.sqrt(mx.maximum(squares, 1e-30))


class MasterLinear(nn.Linear):  # type: ignore[misc]
    """A trained nn.Linear: its weight is float32, the product is taken in x's dtype.

    In bfloat16 itself most updates would be lost: at a rate of 1e-5 they are far below a weight's last bit.
    """

    def __call__(self, x: mx.array) -> mx.array:
        out: mx.array = x @ self.weight.astype(x.dtype).T
        return out


class MasterNorm(nn.RMSNorm):  # type: ignore[misc]
    """A trained nn.RMSNorm, likewise."""

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, self.weight.astype(x.dtype), self.eps)


def make_master(module: nn.Module) -> None:
    """Turn a layer's linear and norm modules into trained ones, in place; nothing happens to float32 weights."""
    for part in module.modules():
        cls = {nn.Linear: MasterLinear, nn.RMSNorm: MasterNorm}.get(type(part))
        if cls is not None and part.weight.dtype != mx.float32:
            part.__class__ = cls
            part.weight = part.weight.astype(mx.float32)
    mx.eval(module.parameters())  # and the weights in fewer bits are let go
