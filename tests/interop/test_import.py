"""Adapters of PEFT and mlx-lm, made by PEFT and mlx-lm, compute here what they compute there, and go back unchanged."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from logits import our_logits, reference_logits, reference_model
from safetensors.torch import load_file
from their_adapters import (
    DECODER,
    adapted_modules,
    edit_config,
    edit_tensors,
    load_peft,
    mlx_lm_adapter,
    peft_adapter,
    peft_logits,
)
from tiny_gemma4 import LINEARS, random_adapter, random_tokens

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.gemma4.load import load
from mlx_gemma.interop import compare, importing, peft_config, programs
from mlx_gemma.interop.export import export
from mlx_gemma.interop.importing import import_adapter
from mlx_gemma.run import read_manifest

Models = Callable[[str], Path]
TOKENS = random_tokens(60)
RELEVANT = ("r", "lora_alpha", "use_rslora", "use_dora", "lora_dropout", "bias", "task_type", "peft_type")
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True, "lora_alpha": 5},
    "dora": {"use_dora": True, "lora_dropout": 0.1},
}


def config_of(folder: Path) -> Any:
    return json.loads((folder / "adapter_config.json").read_text())


def same_tensors(a: Path, b: Path) -> bool:
    one, other = load_file(a), load_file(b)
    return one.keys() == other.keys() and all(torch.equal(one[k].float(), other[k]) for k in one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["e2b", "e2b-text", "e4b", "nano"])
def test_peft_and_back(models: Models, tmp_path: Path, name: str, kind: str) -> None:
    """PEFT -> here: mean difference below 1e-5 of the spread (measured: 3e-6 at most). PEFT -> here -> PEFT: equal."""
    base, theirs, out = models(name), tmp_path / "theirs", tmp_path / "runs/mine"
    model = peft_adapter(base, theirs, **KINDS[kind])
    wanted = peft_logits(model, TOKENS)
    done = import_adapter(str(theirs), "peft", out=out)
    found = our_logits(load(str(out)), TOKENS)
    assert np.abs(found - wanted).mean() < 1e-5 * wanted.std()
    assert np.abs(found - reference_logits(base, TOKENS)).mean() > 0.1 * wanted.std()
    assert done.gap is not None
    assert done.gap.mean < 1e-5 * done.gap.spread
    assert done.effect > 0.1 * done.gap.spread
    assert done.unverified is None
    assert done.found.notices == ()
    assert sum(done.modules.values()) == len(adapted_modules(model)) == (38 if name == "e4b" else 41)

    back = export(out, "peft").path
    assert same_tensors(theirs / peft_config.WEIGHTS, back / peft_config.WEIGHTS)
    assert {k: config_of(back)[k] for k in RELEVANT} == {k: config_of(theirs)[k] for k in RELEVANT}
    again = load_peft(base, back)
    assert adapted_modules(again) == adapted_modules(model)
    assert np.array_equal(peft_logits(again, TOKENS), wanted)


def test_the_run_folder(models: Models, tmp_path: Path) -> None:
    """mlx-lm's form, the base with its fingerprint, and a manifest that says where it is from."""
    peft_adapter(models("e2b"), tmp_path / "theirs")
    done = import_adapter(str(tmp_path / "theirs"), "peft")
    assert done.path == Path("runs/theirs")
    assert sorted(p.name for p in done.path.iterdir()) == [lora.CONFIG, lora.WEIGHTS, "manifest.json"]
    assert [p.name for p in Path("runs").iterdir()] == ["theirs"]
    config = config_of(done.path)
    checkpoint = load(str(models("e2b"))).checkpoint
    assert config == {
        "fine_tune_type": "lora",
        "num_layers": -1,
        "lora_parameters": {"rank": 4, "scale": 1.5, "dropout": 0.0, "keys": sorted(lora.PLACES[t] for t in LINEARS)},
        **{"model": str(models("e2b")), "revision": None, "fingerprint": checkpoint.fingerprint},
    }
    manifest = read_manifest(done.path)
    assert manifest["imported"]["from"] == "peft"
    assert manifest["imported"]["config"]["lora_alpha"] == 6
    assert len(manifest["imported"]["digest"]) == 64
    assert manifest["base"]["digest"] == checkpoint.digest
    assert manifest["adapter"] == {"parameters": done.parameters, "modules": done.modules}
    assert manifest["verified"]["mean"] < 1e-5
    exported = export(done.path, "hf", tmp_path / "hf")
    assert exported.gap.mean < 1e-5


def test_an_adapter_of_the_hub(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its snapshot's folder has the commit for a name; the run folder has the repository's."""
    commit = "0123456789" * 4
    peft_adapter(models("e2b-text"), tmp_path / commit)
    real = importing.find

    def find(name: str, revision: str | None = None) -> Checkpoint:
        return Checkpoint(name, tmp_path / commit, commit) if name == "someone/their-lora" else real(name, revision)

    monkeypatch.setattr(importing, "find", find)
    done = import_adapter("someone/their-lora", "peft")
    assert done.path == Path("runs/their-lora")
    imported = read_manifest(done.path)["imported"]
    assert (imported["name"], imported["revision"]) == ("someone/their-lora", commit)


@pytest.mark.parametrize("name", ["e2b", "e2b-text"])
@pytest.mark.parametrize("kind", KINDS)
def test_adapter_of_the_other_class(models: Models, tmp_path: Path, name: str, kind: str) -> None:
    """PEFT applies nothing of it and only warns; here it is mapped, whole, and goes back in the base's own names."""
    other = models("e2b-text" if name == "e2b" else "e2b")
    patterns = {"rank_pattern": {"layers.1.mlp.up_proj": 2}, "alpha_pattern": {r"layers\.\d\.mlp\..*": 4}}
    peft_adapter(other, tmp_path / "theirs", **KINDS[kind], **(patterns if kind == "lora" else {}))
    own = import_adapter(str(tmp_path / "theirs"), "peft", out=tmp_path / "own")
    mapped = import_adapter(str(tmp_path / "theirs"), "peft", str(models(name)), tmp_path / "mapped")
    assert mapped.gap is not None
    assert own.gap is not None
    assert max(own.gap.mean, mapped.gap.mean) < 1e-5
    assert (own.found.own_class, mapped.found.own_class) == (True, False)
    a, b = (mx.load(str(tmp_path / folder / lora.WEIGHTS)) for folder in ("own", "mapped"))
    renamed = {k.removeprefix("language_model."): v for k, v in b.items()}
    assert {k.removeprefix("language_model.") for k in a} == set(renamed)
    assert all(mx.array_equal(renamed[k.removeprefix("language_model.")], v) for k, v in a.items())
    back = export(tmp_path / "mapped", "peft").path
    load_peft(models(name), back)
    stem = "base_model.model.model." + ("language_model." if name == "e2b" else "layers")
    assert all(k.startswith(stem) for k in load_file(back / peft_config.WEIGHTS))


TARGETS: dict[str, dict[str, Any]] = {
    "list": {"target_modules": list(LINEARS), "exclude_modules": r".*(vision_tower|audio_tower).*"},
    "two": {"target_modules": ["self_attn.q_proj", "mlp.up_proj"], "exclude_modules": r".*tower.*"},
    "regex": {"target_modules": r".*language_model.*\.layers\.[34]\.(self_attn\.q|mlp\.up)_proj"},
    "ragged": {"target_modules": r".*language_model.*\.(layers\.[05]\.mlp\.up_proj|layers\.2\.self_attn\.[kq]_proj)"},
    "layers": {"target_modules": ["up_proj"], "layers_to_transform": [1, 4], "exclude_modules": r".*tower.*"},
    "every linear": {"target_modules": r".*language_model\.layers\.\d+\..*(_proj|per_layer_(input_gate|projection))"},
    "rank_pattern": {"rank_pattern": {"q_proj": 8, r"layers\.2\.mlp\.up_proj": 2}, "lora_alpha": 8},
    "alpha_pattern": {"alpha_pattern": {r".*mlp\.down_proj": 24, "layers.1.self_attn.o_proj": 1}},
    "both": {"rank_pattern": {"up_proj": 7}, "alpha_pattern": {"up_proj": 3, "o_proj": 5}, "use_rslora": True},
    "both, dora": {"rank_pattern": {"up_proj": 7}, "alpha_pattern": {"up_proj": 3}, "use_dora": True},
    "scale 0": {"alpha_pattern": {"up_proj": 0}},
}  # fmt: skip


@pytest.mark.parametrize("case", TARGETS)
def test_targets_and_patterns(models: Models, tmp_path: Path, case: str) -> None:
    """As PEFT computes it: each module's own rank and scale are folded into one; mlx-lm loads the run folder too."""
    base, out = models("e2b"), tmp_path / "mine"
    model = peft_adapter(base, tmp_path / "theirs", **TARGETS[case])
    wanted = peft_logits(model, TOKENS)
    done = import_adapter(str(tmp_path / "theirs"), "peft", out=out)
    found = our_logits(load(str(out)), TOKENS)
    assert np.abs(found - wanted).mean() < 1e-5 * wanted.std()
    assert done.found.own_class
    theirs = compare.logits(programs.mlx_lm_model(base, out), TOKENS)
    assert np.abs(theirs - wanted).mean() < 1e-5 * wanted.std()
    assert len(done.found.arrays) == len(adapted_modules(model))
    back = load_peft(base, export(out, "peft").path)
    assert adapted_modules(back) == adapted_modules(model), "no module more, no module less"
    assert np.abs(peft_logits(back, TOKENS) - wanted).mean() < 1e-5 * wanted.std()
    if "pattern" not in json.dumps({k: v for k, v in TARGETS[case].items() if v}):
        assert same_tensors(tmp_path / "theirs" / peft_config.WEIGHTS, out / "peft" / peft_config.WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(models: Models, tmp_path: Path, dtype: torch.dtype) -> None:
    model = peft_adapter(models("e2b-bf16"), tmp_path / "theirs", dtype=dtype)
    wanted = peft_logits(model, TOKENS)
    done = import_adapter(str(tmp_path / "theirs"), "peft", out=tmp_path / "mine")
    assert {v.dtype for v in mx.load(str(tmp_path / "mine" / lora.WEIGHTS)).values()} == {mx.float32}
    assert np.abs(our_logits(load(str(tmp_path / "mine")), TOKENS) - wanted).mean() < 1e-5 * wanted.std()
    assert done.gap is not None
    assert done.gap.mean < 1e-5
    export(tmp_path / "mine", "peft")
    assert same_tensors(tmp_path / "theirs" / peft_config.WEIGHTS, tmp_path / "mine/peft" / peft_config.WEIGHTS)


def test_dead_kv_and_towers_are_dropped(models: Models, tmp_path: Path) -> None:
    """As older tools made them; PEFT itself ignores the first and adapts the towers, where no text passes."""
    theirs = tmp_path / "theirs"
    towers = r"|.*vision_tower.*\.mlp\.up_proj\.linear|.*embed_vision\.embedding_projection"
    wanted = peft_logits(peft_adapter(models("e2b"), theirs, target_modules=DECODER + towers), TOKENS)

    def add(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        stem = "base_model.model.model.language_model.layers.{}.self_attn.{}_proj.lora_{}.weight"
        dead = {(i, p): torch.randn(16, 64) for i in (3, 4, 5) for p in "kv"}
        more = {stem.format(i, p, "A"): torch.randn(4, 64) for i, p in dead}
        return tensors | more | {stem.format(i, p, "B"): torch.randn(16, 4) for i, p in dead}

    edit_tensors(theirs, add)
    done = import_adapter(str(theirs), "peft", out=tmp_path / "mine")
    assert done.found.notices == (
        "4 tensors of embed_vision, vision_tower dropped: only the text decoder is held here",
        "6 k/v modules dropped: layers 3 and up use an earlier layer's K and V",
    )
    assert read_manifest(done.path)["imported"]["dropped"] == list(done.found.notices)
    assert np.abs(our_logits(load(str(done.path)), TOKENS) - wanted).mean() < 1e-5 * wanted.std()


def test_targets_that_peft_does_not_load(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that matches the towers' ClippableLinear is refused by PEFT today; the tensors tell what was adapted.

    transformers' model is then loaded anew; there is never more than one.
    """
    real, made = programs.transformers_model, []

    def one_at_a_time(folder: Path) -> Any:
        assert [ref() for ref in made] == [None] * len(made)
        model = real(folder)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(programs, "transformers_model", one_at_a_time)
    peft_adapter(models("e2b"), tmp_path / "theirs")
    edit_config(tmp_path / "theirs", target_modules=list(LINEARS))
    done = import_adapter(str(tmp_path / "theirs"), "peft", out=tmp_path / "mine")
    assert len(made) == 2
    assert done.gap is not None
    assert done.gap.mean < 1e-5


def test_config_of_an_older_peft(models: Models, tmp_path: Path) -> None:
    """Keys that are missing have PEFT's defaults: r and lora_alpha 8."""
    wanted = peft_logits(peft_adapter(models("e2b-text"), tmp_path / "theirs", r=8, lora_alpha=8), TOKENS)
    named = {"base_model_name_or_path": str(models("e2b-text")), "target_modules": DECODER, "peft_type": "LORA"}
    (tmp_path / "theirs/adapter_config.json").write_text(json.dumps(named))
    import_adapter(str(tmp_path / "theirs"), "peft", out=tmp_path / "mine")
    assert np.abs(our_logits(load(str(tmp_path / "mine")), TOKENS) - wanted).mean() < 1e-5 * wanted.std()


def test_quantised_base(models: Models, tmp_path: Path) -> None:
    """A folder that mlx-lm quantised takes an adapter; transformers has no such base to compare with."""
    import mlx_lm.utils as mlx_lm

    model, config = mlx_lm.load_model(models("wide"), model_config={"global_head_dim": 32})
    model, config = mlx_lm.quantize_model(model, config, group_size=64, bits=8)
    mlx_lm.save_model(tmp_path / "base", model)
    mlx_lm.save_config(config, tmp_path / "base/config.json")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "base" / name).write_bytes((models("wide") / name).read_bytes())
    wanted = peft_logits(peft_adapter(models("wide"), tmp_path / "theirs"), TOKENS)
    done = import_adapter(str(tmp_path / "theirs"), "peft", str(tmp_path / "base"), tmp_path / "mine")
    assert done.unverified == "the base is quantised, and transformers would compute with other weights"
    found = our_logits(load(str(tmp_path / "mine")), TOKENS)
    assert np.abs(found - wanted).mean() < 0.1 * wanted.std()


MLX_LM: dict[str, dict[str, Any]] = {
    "keys unset": {},
    "last three": {"layers": 3},
    "keys": {"layers": 5, "keys": ["self_attn.q_proj", "mlp.down_proj"]},
    "dora": {"kind": "dora", "keys": ["self_attn.q_proj", "mlp.up_proj"], "rank": 6, "scale": math.pi},
    "full": {"kind": "full", "layers": 2},
}


@pytest.mark.parametrize("case", MLX_LM)
@pytest.mark.parametrize("name", ["e2b", "e4b-text"])
def test_from_mlx_lm(models: Models, tmp_path: Path, name: str, case: str) -> None:
    """As mlx-lm computes it, and mlx-lm loads the run folder as it loads its own."""
    base, theirs, out = models(name), tmp_path / "adapters", tmp_path / "mine"
    mlx_lm_adapter(base, theirs, **MLX_LM[case])
    wanted = compare.logits(programs.mlx_lm_model(base, theirs), TOKENS)
    done = import_adapter(str(theirs), "mlx-lm", out=out)
    assert done.gap is not None
    assert done.gap.mean < 1e-5 * done.gap.spread
    assert done.effect > 0.01
    assert np.abs(our_logits(load(str(out)), TOKENS) - wanted).mean() < 1e-5 * wanted.std()
    assert np.array_equal(compare.logits(programs.mlx_lm_model(base, out), TOKENS), wanted)
    scalars = ("layer_scalar dropped: it is the base's",)
    assert done.found.notices == (scalars if case == "full" else ())
    if case != "full":
        model = load_peft(base, export(out, "peft").path)
        assert np.abs(peft_logits(model, TOKENS) - wanted).mean() < 1e-5 * wanted.std()
    assert export(out, "hf").gap.mean < 1e-5 * wanted.std()


def test_mlx_lm_loads_a_run_folder(models: Models, tmp_path: Path) -> None:
    """With mlx_lm.load, tokenizer and all."""
    from mlx_lm import load as mlx_lm_load

    random_adapter("nano", tmp_path / "run")
    model, _ = mlx_lm_load(str(models("nano")), adapter_path=str(tmp_path / "run"))
    text = getattr(model, "language_model", model)
    wanted = our_logits(load(str(tmp_path / "run")), TOKENS)
    assert np.abs(compare.logits(text, TOKENS) - wanted).mean() < 0.1 * wanted.std(), "nano is bfloat16 there"


def test_mlx_lm_adapter_of_the_other_class(models: Models, tmp_path: Path) -> None:
    mlx_lm_adapter(models("e2b-text"), tmp_path / "adapters")
    done = import_adapter(str(tmp_path / "adapters"), "mlx-lm", str(models("e2b")), tmp_path / "mine")
    assert done.gap is not None
    assert done.gap.mean < 1e-5
    assert not done.found.own_class
    assert reference_model(export(tmp_path / "mine", "hf").path)
