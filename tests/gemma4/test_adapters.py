"""Adapter layers against mlx-lm's and PEFT's own, and dropout that can be drawn again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from mlx_lm.tuner.dora import DoRALinear as MlxLmDoRA
from mlx_lm.tuner.lora import LoRALinear as MlxLmLoRA

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.adapters import DoRALinear, LoRALinear, dense, shape_of
from mlx_gemma.gemma4.nf4 import NF4Linear

RANK, SCALE = 4, 2.0
BASES: dict[str, Callable[[nn.Linear], Any]] = {
    "dense": lambda linear: linear,
    **{f"affine{n}": lambda linear, n=n: linear.to_quantized(64, n) for n in (2, 3, 4, 5, 6, 8)},
    **{mode: lambda linear, mode=mode: linear.to_quantized(mode=mode) for mode in ("mxfp4", "nvfp4", "mxfp8")},
    "nf4": lambda linear: NF4Linear(linear.weight),
}


def random(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def linear(out: int = 96, width: int = 192, *, bias: bool = False) -> nn.Linear:
    made = nn.Linear(width, out, bias=bias)
    made.weight = random(out, width) * width**-0.5
    if bias:
        made.bias = random(out, seed=5)
    return made


def filled(adapter: Any) -> Any:
    """With a change that is not zero, and lengths that are not the base's."""
    adapter.lora_b = 0.1 * random(*adapter.lora_b.shape, seed=1)
    if "m" in adapter:
        adapter.m = adapter.m * (1 + 0.2 * random(*adapter.m.shape, seed=2))
    return adapter


def mlx_lm_s(adapter: Any, cls: Any) -> Any:
    other = cls.from_base(adapter.linear, r=RANK, scale=adapter.scale)
    other.update({k: adapter[k] for k in ("lora_a", "lora_b", "m") if k in adapter})
    return other


@pytest.mark.parametrize("base", ["dense", "affine4", "affine8", "mxfp4"])
def test_lora_is_mlx_lm_s(base: str) -> None:
    """To the bit in float32, at a scale that is a power of two; else but for rounding."""
    x = random(3, 5, 192, seed=3)
    ours = filled(LoRALinear(BASES[base](linear()), RANK, SCALE))
    assert (ours(x) == mlx_lm_s(ours, MlxLmLoRA)(x)).all()
    ours.scale = 11.3137
    assert mx.abs(ours(x) - mlx_lm_s(ours, MlxLmLoRA)(x)).max() < 1e-4


def test_parameters_are_named_and_drawn_as_mlx_lm_s() -> None:
    ours, theirs = LoRALinear(linear(), RANK, SCALE), MlxLmLoRA.from_base(linear(), r=RANK, scale=SCALE)
    assert {k: v.shape for k, v in tree_flatten(ours)} == {k: v.shape for k, v in tree_flatten(theirs)}
    assert abs(mx.abs(ours.lora_a).max().item() - 192**-0.5) < 0.05 * 192**-0.5
    assert not ours.lora_b.any()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", [LoRALinear, DoRALinear])
def test_width_of_a_packed_base(base: str, kind: Any) -> None:
    """T26: an input of 192 in 3, 5 or 6 bits is no whole number of times 32 / bits; mlx-lm's DoRA makes it 180."""
    small = BASES[base](linear())
    assert shape_of(small) == (96, 192)
    adapter = filled(kind(small, RANK, SCALE))
    assert adapter.lora_a.shape == (192, RANK)
    changed = dense(small).astype(mx.float32) + SCALE * (adapter.lora_a @ adapter.lora_b).T
    if kind is DoRALinear:
        changed = changed * (adapter.m / mx.linalg.norm(changed, axis=1))[:, None]
    x = random(7, 192, seed=3)
    assert mx.abs(adapter(x) - x @ changed.T).max() < 2e-5


@pytest.mark.parametrize("kind", [LoRALinear, DoRALinear])
def test_fresh_adapter_changes_nothing(kind: Any) -> None:
    base, x = linear(), random(3, 192)
    assert mx.abs(kind(base, RANK, SCALE)(x) - base(x)).max() < 1e-6


def test_computes_in_bfloat16_and_keeps_no_float32_copy() -> None:
    """mlx-lm's keeps x a second time, in float32: three times the memory. x is 8 MiB here."""

    def peak(cls: Any) -> float:
        base = nn.Linear(1024, 8, bias=False)
        base.weight = base.weight.astype(mx.bfloat16)
        layers = [cls(base) for _ in range(4)]
        xs = [random(4096, 1024, seed=i).astype(mx.bfloat16) for i in range(4)]

        def loss(parameters: list[Any]) -> mx.array:
            for layer, p in zip(layers, parameters, strict=True):
                layer.update(p)
            out = [layer(x) for layer, x in zip(layers, xs, strict=True)]
            assert all(y.dtype == mx.bfloat16 for y in out)
            return sum(y.astype(mx.float32).sum() for y in out)

        parameters = [{k: layer[k] for k in ("lora_a", "lora_b")} for layer in layers]
        mx.eval(xs, parameters, base.parameters())
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(mx.grad(loss)(parameters))
        return (mx.get_peak_memory() - before) / 2**20

    assert peak(lambda base: LoRALinear(base, RANK, SCALE)) < 8
    assert peak(lambda base: MlxLmLoRA.from_base(base, r=RANK, scale=SCALE)) > 48


def peft_layer(adapter: Any, kept: mx.array | None) -> Any:
    """PEFT's DoRA layer with the same numbers; `kept` takes the place of its random mask."""
    from peft import LoraConfig, get_peft_model

    base = adapter.linear
    theirs = torch.nn.Linear(*reversed(shape_of(base)), bias="bias" in base)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(np.asarray(base.weight)))
        if "bias" in base:
            theirs.bias.copy_(torch.tensor(np.asarray(base.bias)))
    rate = 0.0 if kept is None else adapter.dropout
    config = LoraConfig(r=RANK, lora_alpha=RANK * SCALE, use_dora=True, target_modules=["0"], lora_dropout=rate)
    model = get_peft_model(torch.nn.Sequential(theirs), config)
    layer = model.base_model.model[0]
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(torch.tensor(np.asarray(adapter.lora_a)).T)
        layer.lora_B["default"].weight.copy_(torch.tensor(np.asarray(adapter.lora_b)).T)
        layer.lora_magnitude_vector["default"].weight.copy_(torch.tensor(np.asarray(adapter.m)))
    if kept is not None:
        layer.lora_dropout["default"].forward = lambda x: x * torch.tensor(np.asarray(kept)) / (1 - rate)
    return layer.train()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_dora_is_peft_s(bias: bool, rate: float) -> None:
    """Output and every gradient, 1e-5 in float32; with dropout, what PEFT stretches is of the dropped input too."""
    x, other, key = random(7, 192, seed=3), random(7, 96, seed=4), mx.random.key(1)
    ours = filled(DoRALinear(linear(bias=bias), RANK, SCALE, rate))
    ours.set_key(key)
    ours.train()
    kept = mx.random.bernoulli(1 - rate, x.shape, key=key) if rate else None
    theirs = peft_layer(ours, kept)

    def loss(parameters: dict[str, mx.array], x: mx.array) -> mx.array:
        ours.update(parameters)
        return (mx.tanh(ours(x)) * other).sum()

    found, at_x = mx.grad(loss, argnums=(0, 1))({k: ours[k] for k in ("lora_a", "lora_b", "m")}, x)
    given = torch.tensor(np.asarray(x), requires_grad=True)
    out = theirs(given)
    (torch.tanh(out) * torch.tensor(np.asarray(other))).sum().backward()
    wanted = {
        "lora_a": theirs.lora_A["default"].weight.grad.T,
        "lora_b": theirs.lora_B["default"].weight.grad.T,
        "m": theirs.lora_magnitude_vector["default"].weight.grad,
    }
    pairs = [(found[k], wanted[k]) for k in wanted] + [(at_x, given.grad), (ours(x), out.detach())]
    for mine, peft in pairs:
        assert np.abs(np.asarray(mine) - peft.numpy()).max() < 1e-5 * max(1.0, peft.abs().max().item())


@pytest.mark.parametrize("base", ["dense", "affine4", "affine8", "nvfp4"])
def test_dora_is_mlx_lm_s(base: str) -> None:
    ours, x = filled(DoRALinear(BASES[base](linear()), RANK, SCALE)), random(7, 192, seed=3)
    assert mx.abs(ours(x) - mlx_lm_s(ours, MlxLmDoRA)(x)).max() < 1e-5


def test_rslora_scale() -> None:
    """T31: alpha / rank, and alpha / sqrt(rank), are what PEFT computes."""
    from peft import LoraConfig, get_peft_model

    for rslora in (False, True):
        config = LoraConfig(r=32, lora_alpha=64, use_rslora=rslora, target_modules=["0"])
        theirs = get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)), config).base_model.model[0]
        spec = lora.AdapterSpec(32, 64.0, 0.0, ("q_proj",), rslora=rslora)
        assert spec.scale == pytest.approx(theirs.scaling["default"])
        assert spec.mlx_lm_config()["lora_parameters"]["scale"] == spec.scale


class Block(nn.Module):
    """Two adapters, as in a decoder layer."""

    def __init__(self, kind: Any, rate: float = 0.25) -> None:
        super().__init__()
        self.one, self.two = (filled(kind(linear(192), RANK, SCALE, rate)) for _ in range(2))

    def __call__(self, x: mx.array) -> mx.array:
        return mx.tanh(self.one(x)) + self.two(x)


@pytest.mark.parametrize("kind", [LoRALinear, DoRALinear])
def test_the_same_key_draws_the_same_masks(kind: Any) -> None:
    """Plain, compiled with a traced key, and in a checkpoint's recomputation: one value, one gradient."""
    block, x = Block(kind), random(6, 192)
    block.train()
    one, two = mx.random.key(1), mx.random.key(2)

    def loss(x: mx.array, key: mx.array) -> mx.array:
        lora.set_dropout_key(block, key)
        return mx.square(block(x)).sum()

    wanted = mx.grad(loss)(x, one)
    assert (mx.grad(loss)(x, one) == wanted).all()
    assert mx.abs(mx.grad(loss)(x, two) - wanted).max() > 0.01
    argument = mx.grad(mx.checkpoint(loss))
    closure = mx.grad(lambda x, key: mx.checkpoint(lambda x: loss(x, key))(x))
    for way in (mx.compile(mx.grad(loss)), argument, closure, mx.compile(argument), mx.compile(closure)):
        assert mx.abs(way(x, one) - wanted).max() < 1e-4
        assert mx.abs(way(x, two) - wanted).max() > 0.01
    assert not any("_key" in name for name, _ in tree_flatten(block.state)), "a compiled step may capture the state"


def test_each_adapter_has_its_own_mask() -> None:
    block, x = Block(LoRALinear), mx.ones((4, 192))
    block.train()
    lora.set_dropout_key(block, mx.random.key(0))
    assert (block.one._dropped(x) != block.two._dropped(x)).any()
    kept = LoRALinear(linear(), RANK, SCALE, 0.25)
    kept.set_key(mx.random.key(0))
    dropped = kept._dropped(mx.ones((400, 500)))
    assert np.unique(np.asarray(dropped)) == pytest.approx([0, 4 / 3])
    assert abs(dropped.mean().item() - 1) < 0.01


def test_dropout_needs_a_key() -> None:
    """Only in training, and only where something is dropped: a forgotten key would be no dropout without a word."""
    block, x = Block(LoRALinear), random(6, 192)
    block.train()
    with pytest.raises(AssertionError, match="dropout without a key"):
        block(x)
    lora.set_dropout_key(block, mx.random.key(0))
    block(x)
    lora.set_dropout_key(block, None)
    with pytest.raises(AssertionError, match="dropout without a key"):
        block(x)
    block.eval()
    block(x)
    Block(LoRALinear, rate=0.0).train()(x)
