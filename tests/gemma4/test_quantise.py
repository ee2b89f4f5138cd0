"""Quantised bases: what becomes small, what it costs to load and to train through, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from logits import our_logits
from mlx.utils import tree_flatten
from tiny_gemma4 import LINEARS, edit_config, random_tokens

from mlx_gemma.errors import ModelError, RecipeError
from mlx_gemma.gemma4 import lora, nf4, quantise
from mlx_gemma.gemma4.adapters import dense
from mlx_gemma.gemma4.load import load
from mlx_gemma.recipe.schema import Quantization

Models = Callable[[str], Path]
TOKENS = random_tokens(40)
MODES = tuple(quantise.MODES)
ERRORS = {
    "affine4": 0.091,
    "affine6": 0.022,
    "affine8": 0.0054,
    "mxfp4": 0.116,
    "nvfp4": 0.096,
    "mxfp8": 0.027,
    "nf4": 0.092,
}
PLAIN = ("per_layer_input_gate", "per_layer_projection", "per_layer_model_projection", "norm")


def nbytes(gemma: Any) -> int:
    return sum(v.nbytes for _, v in tree_flatten(gemma.model.parameters()))


def test_modes_are_the_recipe_s() -> None:
    assert set(get_args(Quantization)) == {"none", *MODES}


@pytest.mark.parametrize("mode", MODES)
def test_error_on_a_normal_matrix(mode: str) -> None:
    linear = nn.Linear(1024, 512, bias=False)
    linear.weight = mx.array(np.random.default_rng(0).normal(size=(512, 1024)).astype(np.float32))
    gap = mx.linalg.norm(dense(quantise._small(linear, mode)).astype(mx.float32) - linear.weight)
    error = (gap / mx.linalg.norm(linear.weight)).item()
    assert error == pytest.approx(ERRORS[mode], rel=0.03)


@pytest.mark.parametrize("mode", MODES)
def test_what_becomes_small(models: Models, mode: str) -> None:
    """The projections, and on request the embeddings; the small and sensitive weights stay; the function about too."""
    plain = load(str(models("wide")))
    gemma = load(str(models("wide")), quantize=mode, quantize_embeddings=mode)
    modules = dict(gemma.text.model.named_modules())
    small = (nn.QuantizedLinear, nn.QuantizedEmbedding, nf4.NF4Linear)
    found = {name.rsplit(".")[-1] for name, module in modules.items() if isinstance(module, small)}
    assert found == {*LINEARS, "embed_tokens", "embed_tokens_per_layer"}
    assert all(not isinstance(m, small) for name, m in modules.items() if name.endswith(PLAIN))
    assert gemma.quantization == {"quantize": mode, "quantize_embeddings": mode}
    assert nbytes(gemma) < nbytes(plain) * (0.2 if quantise.MODES[mode].bits == 4 else 0.32)
    found, wanted = our_logits(gemma, TOKENS), our_logits(plain, TOKENS)
    assert gemma.model(mx.array([TOKENS])).dtype == mx.float32, "an embedding in bfloat16 would make all of it so"
    assert 0 < np.abs(found - wanted).mean() < (0.05 if mode == "affine8" else 0.7) * wanted.std()
    again = our_logits(load(str(models("wide")), quantize=mode, quantize_embeddings=mode), TOKENS)
    assert (again == found).all(), "T25: the base of a run is the same one each time"


def test_only_the_projections(models: Models) -> None:
    gemma = load(str(models("wide")), quantize="affine4")
    assert type(gemma.text.model.embed_tokens) is nn.Embedding
    assert isinstance(gemma.text.model.layers[0].mlp.up_proj, nn.QuantizedLinear)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["wide", "wide-bf16"])
def test_loading_takes_the_result_and_one_tensor(
    models: Models, monkeypatch: pytest.MonkeyPatch, name: str, mode: str
) -> None:
    """The weights come lazily, one at a time; the largest here is the per-layer embedding, with its float32 copy.

    Its pieces are joined at the end: at most 9 bits of 32 more.
    """
    monkeypatch.setattr(nf4, "QUANTISED_AT_ONCE", 10_000)
    whole = nbytes(load(str(models(name))))
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    gemma = load(str(models(name)), quantize=mode, quantize_embeddings=mode)
    peak = mx.get_peak_memory() - before
    table = 3072 * 7 * 64 * 4
    assert peak < nbytes(gemma) + {"wide": 1, "wide-bf16": 1.5}[name] * table + 9 / 32 * table + 20 * 4 * 10_000
    assert peak < 0.75 * whole


# Training through them


def chain(mode: str, layers: int, width: int) -> list[Any]:
    made = []
    for i in range(layers):
        linear = nn.Linear(width, width, bias=False)
        linear.weight = mx.random.normal((width, width), key=mx.random.key(i)) * width**-0.5
        made.append(quantise._small(linear, mode))
        mx.eval(made[-1].parameters())
    return made


@pytest.mark.parametrize("mode", MODES)
def test_input_gradient(mode: str) -> None:
    """T27: that of the dense weights, to rounding."""
    (layer,) = chain(mode, 1, 256)
    weight = dense(layer).astype(mx.float32)
    x = mx.random.normal((6, 256), key=mx.random.key(9))
    found = mx.grad(lambda x: mx.square(layer(x)).sum())(x)
    wanted = mx.grad(lambda x: mx.square(x @ weight.T).sum())(x)
    assert mx.linalg.norm(found - wanted) < 2e-6 * mx.linalg.norm(wanted)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", [lambda f: f, mx.compile], ids=["plain", "compiled"])
def test_dense_weights_are_not_kept(mode: str, way: Any) -> None:
    """Between forward and backward pass 24 layers of 1 MiB dense keep their inputs; compiled too, where the two
    dequantisations of a layer look like one."""
    layers, x = chain(mode, 24, 512), mx.random.normal((4, 512))

    def loss(x: mx.array) -> mx.array:
        for layer in layers:
            x = mx.tanh(layer(x))
        return x.sum()

    mx.eval(x)
    gradient = way(mx.grad(loss))
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(gradient(x))
    peak = (mx.get_peak_memory() - before) / 2**20
    assert peak < (12 if mode == "nf4" else 2), peak


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_learns_on_it(models: Models, mode: str, kind: Any) -> None:
    gemma = load(str(models("wide")), quantize=mode, quantize_embeddings=mode)
    lora.attach(gemma.model, lora.AdapterSpec(4, 8.0, 0.0, LINEARS, kind=kind))
    tokens = mx.array([TOKENS])

    def loss(model: nn.Module) -> mx.array:
        return nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).mean()

    frozen = {
        k: np.asarray(v)
        for k, v in tree_flatten(gemma.model.parameters())
        if k not in lora.adapter_parameters(gemma.model)
    }
    step, optimiser = nn.value_and_grad(gemma.model, loss), optim.Adam(2e-3)
    losses = []
    for _ in range(4):
        value, gradients = step(gemma.model)
        assert all(mx.abs(g).max() > 0 for k, g in tree_flatten(gradients) if k.endswith("lora_b"))
        optimiser.update(gemma.model, gradients)
        losses.append(value.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.2
    after = dict(tree_flatten(gemma.model.parameters()))
    assert all((np.asarray(after[k]) == v).all() for k, v in frozen.items())


# What is refused


@pytest.mark.parametrize(
    ("name", "modes", "word"),
    [
        ("e2b", {"quantize": "affine4"}, "layers.0.mlp.down_proj is 96 wide, and affine4 needs a multiple of 64"),
        ("e2b", {"quantize_embeddings": "mxfp4"}, "embed_tokens_per_layer is 56 wide.*possible for it: none"),
        ("nano", {"quantize_embeddings": "nf4"}, "embed_tokens_per_layer is 112 wide.*possible for it: nvfp4$"),
        ("wide", {"quantize": "int3"}, "no quantisation is called 'int3'; choose from affine4"),
    ],
)
def test_widths_and_names(models: Models, name: str, modes: Any, word: str) -> None:
    with pytest.raises(ModelError, match=word) as caught:
        load(str(models(name)), **modes)
    assert "\n" not in str(caught.value)


def quantised_folder(writable: Callable[[str], Path]) -> Path:
    """As mlx-lm converts one."""
    folder = writable("wide")
    gemma = load(str(folder))
    nn.quantize(gemma.model, 64, 4)
    names = dict(tree_flatten(gemma.model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), names, metadata={"format": "mlx"})
    edit_config(folder, quantization={"group_size": 64, "bits": 4})
    return folder


def test_a_quantised_checkpoint(writable: Callable[[str], Path]) -> None:
    """Loads as it is, and is not quantised again, nor trained whole."""
    folder = quantised_folder(writable)
    gemma = load(str(folder))
    assert isinstance(gemma.text.model.layers[0].mlp.up_proj, nn.QuantizedLinear)
    assert gemma.quantization == {}
    with pytest.raises(ModelError, match=r"quantised already.*full-precision checkpoint"):
        load(str(folder), quantize="affine4")
    with pytest.raises(RecipeError, match="the base is quantised, and full trains its own weights"):
        lora.attach(gemma.model, lora.AdapterSpec(4, 8.0, 0.0, LINEARS, kind="full"))
    lora.attach(gemma.model, lora.AdapterSpec(4, 8.0, 0.0, LINEARS))
