"""Adapters for PEFT are judged by PEFT: it loads them without a warning, and computes what is computed here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logits import our_logits, reference_logits
from safetensors.torch import load_file
from their_adapters import adapted_modules, load_peft, peft_logits
from tiny_gemma4 import LINEARS, random_adapter, random_tokens, rename_tensors

from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import load
from mlx_gemma.interop import foreign, peft
from mlx_gemma.interop.export import export

Models = Callable[[str], Path]
TOKENS = random_tokens(60)


def edit(run: Path, change: Callable[[Any], Any]) -> None:
    config = json.loads((run / lora.CONFIG).read_text())
    change(config)
    (run / lora.CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("name", ["e2b", "e2b-text", "e4b", "nano", "e2b-bf16"])
def test_peft_computes_base_plus_adapter(models: Models, tmp_path: Path, name: str, kind: str) -> None:
    """Float32, mean difference: below 1e-5 of the logits' spread (measured: 3e-6), the adapter's effect 0.5 of it."""
    base, run = models(name), tmp_path / "run"
    random_adapter(base, run, kind="dora" if kind == "dora" else "lora")
    if kind == "rslora":
        edit(run, lambda c: (c["lora_parameters"].update(scale=6 / math.sqrt(4)), c.update(rslora=True)))
    wanted = our_logits(load(str(run)), TOKENS)
    done = export(run, "peft")
    assert done.path == run / "peft"
    assert sorted(p.name for p in done.path.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert done.gap.largest == 0.0
    assert done.changes == []

    model = load_peft(base, done.path)
    gap, effect = np.abs(peft_logits(model, TOKENS) - wanted), np.abs(reference_logits(base, TOKENS) - wanted)
    assert gap.mean() < 1e-5 * wanted.std()
    assert effect.mean() > 0.1 * wanted.std()

    config = json.loads((done.path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 6 if kind == "rslora" else 8)
    assert (config["use_rslora"], config["use_dora"]) == (kind == "rslora", kind == "dora")
    assert (config["bias"], config["task_type"], config["inference_mode"]) == ("none", "CAUSAL_LM", True)
    assert config["base_model_name_or_path"] == str(base)
    held = load_file(done.path / "adapter_model.safetensors")
    assert {v.dtype for v in held.values()} == {torch.float32}
    stem = "model.layers" if name == "e2b-text" else "model.language_model.layers"
    found = adapted_modules(model)
    assert {k.removeprefix("base_model.model.").split(".lora_")[0] for k in held} == found
    assert all(k.startswith(stem) for k in found), "nothing in the towers"
    assert len(found) == (38 if name == "e4b" else 41)


@pytest.mark.parametrize(("targets", "layers"), [
    (("q_proj",), 2), (("k_proj", "down_proj"), 5), (("v_proj", "k_proj"), None), (("per_layer_input_gate",), 3),
])  # fmt: skip
def test_targets_are_the_run_s_own(
    models: Models, tmp_path: Path, targets: tuple[str, ...], layers: int | None
) -> None:
    """The last so many layers only, and no k_proj where layers share their K/V; the regex is good for either class."""
    gemma, spec = load(str(models("e2b"))), lora.AdapterSpec(4, 8, 0.1, targets, layers)
    lora.attach(gemma.model, spec)
    (tmp_path / "run").mkdir()
    lora.save_adapter(gemma.model, tmp_path / "run", spec, gemma.base)
    config = json.loads((export(tmp_path / "run", "peft").path / "adapter_config.json").read_text())
    adapted = {k.removesuffix(".lora_a") for k in lora.adapter_parameters(gemma.model) if k.endswith("lora_a")}
    places = {k.removeprefix("language_model.model.") for k in adapted}
    found = {
        n.removeprefix("model.language_model.")
        for n in adapted_modules(load_peft(models("e2b"), tmp_path / "run/peft"))
    }
    assert found == places
    assert config["lora_dropout"] == 0.1
    every = {f"layers.{i}.{lora.PLACES[t]}" for i in range(12) for t in lora.PLACES}
    for before in ("model.", "model.language_model."):
        assert {p for p in every if re.fullmatch(config["target_modules"], before + p)} == places
    assert not any(re.fullmatch(config["target_modules"], f"model.{t}.encoder.{p}")
                   for t in ("vision_tower", "audio_tower") for p in every)  # fmt: skip


def test_run_saved_on_the_other_class(models: Models, tmp_path: Path) -> None:
    """The names are those of the base's class, whatever the adapter's own file has."""
    random_adapter(models("e2b"), tmp_path / "run")
    export(tmp_path / "run", "peft", tmp_path / "a")
    rename_tensors(tmp_path / "run", lambda key: key.replace("language_model.model.", "model.", 1))
    export(tmp_path / "run", "peft", tmp_path / "b")
    a, b = (load_file(tmp_path / name / "adapter_model.safetensors") for name in "ab")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    one, other = ((tmp_path / name / "adapter_config.json").read_text() for name in "ab")
    assert one == other


def test_trained_on_a_quantised_base(models: Models, tmp_path: Path) -> None:
    random_adapter(models("wide"), tmp_path / "run", quantize="affine4")
    done = export(tmp_path / "run", "peft")
    assert done.moved is not None
    assert done.moved > 0
    wanted = our_logits(load(str(models("wide")), adapter=tmp_path / "run", quantize="none"), TOKENS)
    assert np.abs(peft_logits(load_peft(models("wide"), done.path), TOKENS) - wanted).mean() < 1e-5


@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_makes_the_scale_exactly(rslora: bool) -> None:
    """For every usual rank and alpha the whole number comes back; for any scale, what PEFT divides is the scale."""
    for rank in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 128, 256):
        divisor = math.sqrt(rank) if rslora else rank
        for whole in range(1, 257):
            assert peft.alpha(whole / divisor, rank, rslora) / divisor == whole / divisor
    rng = np.random.default_rng(0)
    for scale in rng.uniform(0.01, 30, 1000).tolist():
        for rank in (8, 24, 64):
            divisor = math.sqrt(rank) if rslora else rank
            assert peft.alpha(scale, rank, rslora) / divisor == pytest.approx(scale, rel=3e-16, abs=0)


def test_full_training_has_no_form(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b"), tmp_path / "run", kind="full")
    with pytest.raises(UserError, match=r"no form for full training.*--to hf"):
        export(tmp_path / "run", "peft")
    assert not list(tmp_path.glob("run/peft*"))


def test_nothing_to_choose(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b-text"), tmp_path / "run")
    with pytest.raises(UserError, match="--dtype: BF16 is not for this form"):
        export(tmp_path / "run", "peft", dtype="BF16")


@pytest.mark.parametrize("damage", ["scale", "transposed", "names"])
def test_wrong_files_are_refused(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    """What is compared is what the files say: a wrong alpha, factor or name is found before success is reported."""
    random_adapter(models("e2b"), tmp_path / "run")
    if damage == "scale":
        monkeypatch.setattr(peft, "alpha", lambda scale, rank, rslora: 2 * scale * rank)
    elif damage == "transposed":
        real = peft.tensors
        monkeypatch.setattr(peft, "tensors", lambda a, b: {k: v.T for k, v in real(a, b).items()})
    else:
        monkeypatch.setattr(peft, "stem", lambda source: "model.vision_tower.encoder.")
    with pytest.raises(ModelError):
        export(tmp_path / "run", "peft")
    assert not list(tmp_path.glob("run/peft*"))


@pytest.mark.parametrize(
    "error", [RuntimeError("[write] Unable to write"), OSError(28, "No space left"), KeyboardInterrupt()]
)
def test_nothing_is_left_behind(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    random_adapter(models("e2b-text"), tmp_path / "run")

    def failing(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(foreign.mx, "save_safetensors", failing)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UserError):
        export(tmp_path / "run", "peft")
    assert not list(tmp_path.glob("run/peft*"))


def test_every_linear_of_the_layers(models: Models, tmp_path: Path) -> None:
    """Per-layer input gates and projections too, which PEFT reaches in transformers under the same names."""
    random_adapter(models("e4b"), tmp_path / "run", targets=(*LINEARS, "per_layer_input_gate", "per_layer_projection"))
    wanted = our_logits(load(str(tmp_path / "run")), TOKENS)
    model = load_peft(models("e4b"), export(tmp_path / "run", "peft").path)
    assert np.abs(peft_logits(model, TOKENS) - wanted).mean() < 1e-5 * wanted.std()
