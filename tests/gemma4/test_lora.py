"""Adapters: where they attach, what is trainable, and files that mlx-lm reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from logits import our_logits
from mlx.utils import tree_flatten
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
    model = load(str(models(name))).model
    shapes = {k: v.shape for k, v in tree_flatten(model.parameters())}
    done = lora.attach(model, spec(*LINEARS))
    assert done.modules == {t: own if t in ("k_proj", "v_proj") else layers for t in LINEARS}
    matched = [k for k in shapes if k.endswith(tuple(f"{t}.weight" for t in LINEARS))]
    assert done.parameters == sum(4 * sum(shapes[k]) for k in matched)


def test_only_the_adapter_is_trainable(models: Models) -> None:
    model = load(str(models("e2b"))).model
    before = our_logits(load(str(models("e2b"))), TOKENS)
    lora.attach(model, spec("q_proj", "down_proj", layers=2))
    trainable = dict(tree_flatten(model.trainable_parameters()))
    assert set(trainable) == set(lora.adapter_parameters(model))
    assert {k.split("layers.")[1][0] for k in trainable} == {"5", "6"}
    assert {v.dtype for v in trainable.values()} == {mx.float32}
    after = np.asarray(model(mx.array([TOKENS]))[0])
    assert (after == before).all(), "lora_b starts at zero, so a fresh adapter changes nothing"


def test_per_layer_embedding_targets(models: Models) -> None:
    done = lora.attach(load(str(models("e2b"))).model, spec("per_layer_input_gate", "per_layer_projection"))
    assert done.modules == {"per_layer_input_gate": 7, "per_layer_projection": 7}


@pytest.mark.parametrize("target", ["k_proj", "v_proj"])
def test_kv_of_shared_layers_is_refused(models: Models, target: str) -> None:
    """The four last layers share their K/V; training only them trains no K/V."""
    with pytest.raises(RecipeError, match=r"layers 3 and up share their K/V"):
        lora.attach(load(str(models("e2b"))).model, spec("q_proj", target, layers=4))


def test_too_many_layers(models: Models) -> None:
    with pytest.raises(RecipeError, match="the model has 7"):
        lora.attach(load(str(models("e2b"))).model, spec("q_proj", layers=8))


@pytest.mark.parametrize("name", ["e2b", "e2b-text", "e4b", "nano"])
def test_round_trip_is_exact(models: Models, tmp_path: Path, name: str) -> None:
    """Saved and loaded, by us (as an adapter and as a run) and by mlx-lm: the same logits, to the bit."""
    base = models(name)
    gemma = random_adapter(base, tmp_path / "run")
    wanted = our_logits(gemma, TOKENS)
    assert np.abs(wanted - our_logits(load(str(base)), TOKENS)).max() > 0.1
    assert (our_logits(load(str(base), adapter=tmp_path / "run"), TOKENS) == wanted).all()
    assert (our_logits(load(str(tmp_path / "run")), TOKENS) == wanted).all()
    theirs: Any = load_adapters(load_model(gemma.checkpoint), str(tmp_path / "run"))
    theirs.eval()
    assert (np.asarray(theirs(mx.array([TOKENS]))[0]) == wanted).all()


def test_loaded_adapter_is_frozen(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b"), tmp_path)
    assert not tree_flatten(load(str(tmp_path)).model.trainable_parameters())


def test_config_is_mlx_lm_s(models: Models, tmp_path: Path) -> None:
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
    random_adapter(models("e2b"), tmp_path / "a")
    change, word = DAMAGES[damage]
    change(tmp_path / "a")
    with pytest.raises(ModelError, match=word) as caught:
        load(str(models("e2b")), adapter=tmp_path / "a")
    assert caught.value.fix
    assert "\n" not in str(caught.value)


def test_wrong_model(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b"), tmp_path)
    with pytest.raises(ModelError, match="do not match this model") as caught:
        load(str(models("e4b")), adapter=tmp_path)
    assert str(models("e2b")) in str(caught.value), "the line names the base that it belongs to"


def test_base_unknown(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b"), tmp_path)
    edit(tmp_path, lambda c: c.pop("model"))
    with pytest.raises(ModelError, match="does not name its base"):
        load(str(tmp_path))
