"""Adapters: where they attach, what is trainable, and files that mlx-lm reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from logits import our_logits, reference_model
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.utils import load_adapters
from tiny_gemma4 import LINEARS, random_adapter, random_tokens

from mlx_gemma.errors import ModelError, RecipeError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import load, load_model

Models = Callable[[str], Path]
TOKENS = random_tokens(40)


def spec(*targets: str, layers: int | None = None) -> lora.AdapterSpec:
    return lora.AdapterSpec(rank=4, alpha=8, dropout=0.0, targets=targets, layers=layers)


@pytest.mark.parametrize(("name", "layers", "own"), [("e2b", 7, 3), ("e2b-text", 7, 3), ("e4b", 6, 4), ("nano", 7, 3)])
def test_counts(models: Models, name: str, layers: int, own: int) -> None:
    """K/V only on layers that have their own."""
    # T6: suffixes alone would match the towers too.
    model = load(str(models(name))).model
    shapes = {k: v.shape for k, v in tree_flatten(model.parameters())}
    done = lora.attach(model, spec(*LINEARS))
    assert done.modules == {t: own if t in ("k_proj", "v_proj") else layers for t in LINEARS}
    matched = [k for k in shapes if k.endswith(tuple(f"{t}.weight" for t in LINEARS))]
    assert done.parameters == sum(4 * sum(shapes[k]) for k in matched)


def test_only_the_adapter_is_trainable(models: Models) -> None:
    # T32: freeze before attaching (24 tensors against 172).
    model = load(str(models("e2b"))).model
    before = our_logits(load(str(models("e2b"))), TOKENS)
    lora.attach(model, spec("q_proj", "down_proj", layers=2))
    trainable = dict(tree_flatten(model.trainable_parameters()))
    assert set(trainable) == set(lora.adapter_parameters(model))
    assert {k.split("layers.")[1][0] for k in trainable} == {"5", "6"}
    assert {v.dtype for v in trainable.values()} == {mx.float32}
    after = np.asarray(model(mx.array([TOKENS]))[0])
    assert (after == before).all(), "lora_b starts at zero, so a fresh adapter changes nothing"


@pytest.mark.parametrize("layers", [None, 2])
def test_full_training_takes_what_transformers_trains(models: Models, layers: int | None) -> None:
    """Every parameter of transformers' decoder layers, so not layer_scalar (a buffer); T32: and nothing else."""
    model = load(str(models("e2b"))).model
    done = lora.attach(model, lora.AdapterSpec(4, 8, 0.0, (), layers, kind="full"))
    trainable = dict(tree_flatten(model.trainable_parameters()))
    theirs = {k: v for k, v in reference_model(models("e2b")).named_parameters() if "language_model.layers." in k}
    wanted = {
        k.replace("model.language_model", "language_model.model"): tuple(v.shape)
        for k, v in theirs.items()
        if layers is None or int(k.split(".")[3]) >= 5
    }
    assert {k: v.shape for k, v in trainable.items()} == wanted
    assert done.parameters == sum(v.size for v in trainable.values())
    assert done.modules["up_proj"] == done.modules["input_layernorm"] == (layers or 7)


def test_full_training_of_a_bfloat16_model(models: Models, tmp_path: Path) -> None:
    """Trained weights are float32, or small updates would be lost; the function stays, to the bit, in bfloat16."""
    model, tokens = load(str(models("e2b-bf16"))).model, mx.array([TOKENS])
    model.set_dtype(mx.bfloat16)
    before = model(tokens)
    given = lora.AdapterSpec(4, 8, 0.0, (), kind="full")
    lora.attach(model, given)
    assert {v.dtype for _, v in tree_flatten(model.trainable_parameters())} == {mx.float32}
    assert model(tokens).dtype == before.dtype == mx.bfloat16
    assert (model(tokens) == before).all()
    _, gradients = nn.value_and_grad(model, lambda m: mx.square(m(tokens)).mean())(model)
    assert {v.dtype for _, v in tree_flatten(gradients)} == {mx.float32}
    model.update(tree_map(lambda v, g: v - 1e-6 * mx.sign(g), model.trainable_parameters(), gradients))
    assert not (
        model.layers[0].mlp.up_proj.weight == load(str(models("e2b-bf16"))).text.layers[0].mlp.up_proj.weight
    ).any()
    lora.save_adapter(model, tmp_path, given, {"name": str(models("e2b-bf16")), "revision": None})
    assert {v.dtype for v in dict(mx.load(str(tmp_path / lora.WEIGHTS))).values()} == {mx.float32}


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_only_the_adapter_is_saved(models: Models, tmp_path: Path, kind: Any) -> None:
    """T39: whatever else was unfrozen since. T40: the config names what is in the file."""
    gemma = load(str(models("e2b")))
    given = lora.AdapterSpec(4, 8, 0.0, ("q_proj",), 2, kind=kind, rslora=True)
    done = lora.attach(gemma.model, given)
    gemma.model.unfreeze()
    lora.save_adapter(gemma.model, tmp_path, given, gemma.base)
    held: dict[str, mx.array] = dict(mx.load(str(tmp_path / lora.WEIGHTS)))
    assert sum(v.size for v in held.values()) == done.parameters
    config = json.loads((tmp_path / lora.CONFIG).read_text())
    assert (config["fine_tune_type"], config["num_layers"]) == (kind, 2)
    if kind != "full":
        assert {k.split(".", 4)[4].rsplit(".", 1)[0] for k in held} == set(config["lora_parameters"]["keys"])
        assert config["lora_parameters"]["scale"] == 4.0
        assert config["lora_parameters"]["rank"] == 4


@pytest.mark.parametrize("modes", [{"quantize": "affine4"}, {"quantize": "nf4", "quantize_embeddings": "affine8"}])
def test_a_run_s_base_is_quantised_again(models: Models, tmp_path: Path, modes: dict[str, str]) -> None:
    """T25: the run is loaded on what it was trained on, unless told otherwise; mlx-lm on the full-precision base."""
    wanted = our_logits(random_adapter(models("wide"), tmp_path, **modes), TOKENS)
    assert lora.quantization_of(tmp_path) == modes
    assert (our_logits(load(str(tmp_path)), TOKENS) == wanted).all()
    assert (our_logits(load(str(models("wide")), adapter=tmp_path), TOKENS) == wanted).all()
    none = {"quantize": "none", "quantize_embeddings": "none"}
    plain = our_logits(load(str(tmp_path), **none), TOKENS)
    assert np.abs(plain - wanted).max() > 0.01
    theirs: Any = load_adapters(load_model(load(str(models("wide"))).checkpoint), str(tmp_path))
    theirs.eval()
    assert (np.asarray(theirs(mx.array([TOKENS]))[0]) == plain).all()


def test_another_base(models: Models, tmp_path: Path) -> None:
    """T25: the same tensors in another precision, or of another configuration, are refused before they are read."""
    gemma = load(str(models("e2b")))
    given = spec("q_proj")
    lora.attach(gemma.model, given)
    lora.save_adapter(gemma.model, tmp_path, given, gemma.base)
    load(str(models("e2b")), adapter=tmp_path)
    for other in ("e2b-bf16", "wide", "e4b", "nano"):
        with pytest.raises(ModelError, match=r"trained on another base than .*; load it on its own base, ") as caught:
            load(str(models(other)), adapter=tmp_path)
        assert str(models("e2b")) in str(caught.value)


@pytest.mark.parametrize(("own", "other"), [("e2b", "e2b-text"), ("e2b-text", "e2b")])
def test_an_adapter_of_the_other_class(models: Models, tmp_path: Path, own: str, other: str) -> None:
    """Multimodal or text-only: the same text decoder (T41: mlx-lm and PEFT warn, and apply nothing)."""
    wanted = lora.adapter_parameters(random_adapter(models(own), tmp_path).model)
    gemma = load(str(models(other)), adapter=tmp_path)
    found = {k.removeprefix("language_model."): v for k, v in lora.adapter_parameters(gemma.model).items()}
    assert len(found) == len(wanted) > 0
    assert all(mx.array_equal(v, found[k.removeprefix("language_model.")]) for k, v in wanted.items())


def test_full_training_onto_another_size(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b"), tmp_path, kind="full")
    with pytest.raises(ModelError, match="do not match this model"):
        load(str(models("e4b")), adapter=tmp_path)


def test_per_layer_embedding_targets(models: Models) -> None:
    done = lora.attach(load(str(models("e2b"))).model, spec("per_layer_input_gate", "per_layer_projection"))
    assert done.modules == {"per_layer_input_gate": 7, "per_layer_projection": 7}


@pytest.mark.parametrize("target", ["k_proj", "v_proj"])
def test_kv_of_shared_layers_is_refused(models: Models, target: str) -> None:
    """The four last layers share their K/V; training only them trains no K/V."""
    # T6.
    with pytest.raises(RecipeError, match=r"layers 3 and up share their K/V"):
        lora.attach(load(str(models("e2b"))).model, spec("q_proj", target, layers=4))


def test_too_many_layers(models: Models) -> None:
    with pytest.raises(RecipeError, match="the model has 7"):
        lora.attach(load(str(models("e2b"))).model, spec("q_proj", layers=8))


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
@pytest.mark.parametrize("name", ["e2b", "e2b-text", "e4b", "nano"])
def test_round_trip_is_exact(models: Models, tmp_path: Path, name: str, kind: str) -> None:
    """Saved and loaded, by us (as an adapter and as a run) and by mlx-lm: the same logits, to the bit.

    mlx-lm computes DoRA's lengths from the dense sum, so there it is to rounding.
    """
    # T41: the adapter is really there, whoever loads it.
    base = models(name)
    gemma = random_adapter(base, tmp_path / "run", kind=kind)
    wanted = our_logits(gemma, TOKENS)
    assert np.abs(wanted - our_logits(load(str(base)), TOKENS)).max() > 0.1
    assert (our_logits(load(str(base), adapter=tmp_path / "run"), TOKENS) == wanted).all()
    assert (our_logits(load(str(tmp_path / "run")), TOKENS) == wanted).all()
    theirs: Any = load_adapters(load_model(gemma.checkpoint), str(tmp_path / "run"))
    theirs.eval()
    gap = np.abs(np.asarray(theirs(mx.array([TOKENS]))[0]) - wanted)
    assert gap.max() <= (1e-4 if kind == "dora" else 0)


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_loaded_adapter_is_frozen(models: Models, tmp_path: Path, kind: str) -> None:
    """T32: a loaded adapter would otherwise leave the whole model trainable."""
    random_adapter(models("e2b"), tmp_path, kind=kind)
    assert not tree_flatten(load(str(tmp_path)).model.trainable_parameters())


def test_config_is_mlx_lm_s(models: Models, tmp_path: Path) -> None:
    # T31, T40: scale is alpha / rank, where mlx-lm's default is 20; resolved keys, not patterns.
    random_adapter(models("e2b"), tmp_path, targets=("q_proj", "up_proj"))
    config = json.loads((tmp_path / lora.CONFIG).read_text())
    keys = ["mlp.up_proj", "self_attn.q_proj"]
    assert config["lora_parameters"] == {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": keys}
    assert config["fine_tune_type"] == "lora"
    assert lora.base_of(tmp_path) == (str(models("e2b")), None)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [lora.CONFIG, lora.WEIGHTS]


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / lora.CONFIG).read_text())
    change(config)
    (folder / lora.CONFIG).write_text(json.dumps(config))


def drop_tensor(folder: Path) -> None:
    weights: dict[str, mx.array] = dict(mx.load(str(folder / lora.WEIGHTS)))
    weights.pop(sorted(weights)[0])
    mx.save_safetensors(str(folder / lora.WEIGHTS), weights)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda f: (f / lora.WEIGHTS).unlink(), "no adapters.safetensors"),
    "no config": (lambda f: (f / lora.CONFIG).unlink(), "no adapter_config.json"),
    "config is no JSON": (lambda f: (f / lora.CONFIG).write_text("{"), "unreadable adapter_config.json"),
    "config is a list": (lambda f: (f / lora.CONFIG).write_text("[1]"), "unreadable adapter_config.json"),
    "PEFT's config": (
        lambda f: (f / lora.CONFIG).write_text('{"peft_type": "LORA", "r": 4}'),
        "unreadable adapter_config.json",
    ),
    "another kind": (lambda f: edit(f, lambda c: c.update(fine_tune_type="vera")), "fine_tune_type 'vera'"),
    "a rank in words": (lambda f: edit(f, lambda c: c["lora_parameters"].update(rank="four")), "unreadable adapter_c"),
    "a rank below 0": (lambda f: edit(f, lambda c: c["lora_parameters"].update(rank=-1)), "does not fit this model"),
    "layers in words": (lambda f: edit(f, lambda c: c.update(num_layers="all")), "unreadable adapter_config.json"),
    "a list of modes": (lambda f: edit(f, lambda c: c.update(quantization=["nf4"])), "unreadable adapter_config.json"),
    "an unknown mode": (lambda f: edit(f, lambda c: c.update(quantization={"quantize": "int3"})), "'int3'"),
    "DoRA without m": (lambda f: edit(f, lambda c: c.update(fine_tune_type="dora")), "do not match this model"),
    "full without weights": (lambda f: edit(f, lambda c: c.update(fine_tune_type="full")), "do not match this model"),
    "no scale": (lambda f: edit(f, lambda c: c["lora_parameters"].pop("scale")), "scale"),
    "another rank": (lambda f: edit(f, lambda c: c["lora_parameters"].update(rank=8)), "do not match this model"),
    "fewer layers": (lambda f: edit(f, lambda c: c.update(num_layers=2)), "do not match this model"),
    "tensor missing": (drop_tensor, "do not match this model"),
    "weights cut": (
        lambda f: (f / lora.WEIGHTS).write_bytes((f / lora.WEIGHTS).read_bytes()[:5000]),
        "unreadable adapters.safetensors",
    ),
    "weights are text": (lambda f: (f / lora.WEIGHTS).write_text("x" * 99), "unreadable adapters.safetensors"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_adapter(models: Models, tmp_path: Path, damage: str) -> None:
    # T40: strictly loaded; an adapter of which nothing fits would be the base without a word.
    random_adapter(models("e2b"), tmp_path / "a")
    change, word = DAMAGES[damage]
    change(tmp_path / "a")
    with pytest.raises(ModelError, match=word) as caught:
        load(str(models("e2b")), adapter=tmp_path / "a")
    assert caught.value.fix
    assert "\n" not in str(caught.value)


def test_wrong_model(models: Models, tmp_path: Path) -> None:
    # T25.
    random_adapter(models("e2b"), tmp_path)
    with pytest.raises(ModelError, match="do not match this model") as caught:
        load(str(models("e4b")), adapter=tmp_path)
    assert str(models("e2b")) in str(caught.value), "the line names the base that it belongs to"


def test_base_unknown(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b"), tmp_path)
    edit(tmp_path, lambda c: c.pop("model"))
    with pytest.raises(ModelError, match="does not name its base"):
        load(str(tmp_path))
