"""Adapters that cannot be held, belong to another model, or are damaged: one line that says why, and nothing left."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from their_adapters import DECODER, edit_config, edit_tensors, mlx_lm_adapter, peft_adapter
from tiny_gemma4 import edit_config as edit_base
from tiny_gemma4 import random_adapter, rename_tensors

from mlx_gemma import run
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.interop import counterpart, foreign, peft_read, programs
from mlx_gemma.interop.importing import import_adapter

Models = Callable[[str], Path]
STEM = "base_model.model.model.layers"
UP = f"{STEM}.1.mlp.up_proj"


@pytest.fixture
def theirs(models: Models, tmp_path: Path) -> Path:
    peft_adapter(models("e2b-text"), tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def adapters(models: Models, tmp_path: Path) -> Path:
    mlx_lm_adapter(models("e2b-text"), tmp_path / "adapters")
    return tmp_path / "adapters"


def refused(adapter: Path, form: str, word: str, **options: Any) -> None:
    out = adapter.parent / "out"
    with pytest.raises(UserError, match=word) as caught:
        import_adapter(str(adapter), form, out=out, **options)
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    assert not list(adapter.parent.glob("out*"))


MADE: dict[str, tuple[dict[str, Any], str]] = {
    "a module saved whole": ({"modules_to_save": ["norm"]}, "modules_to_save is set"),
    "biases of B": ({"lora_bias": True}, "lora_bias is set"),
    "biases": ({"bias": "all"}, "bias 'all' cannot be held"),
    "tokens": ({"trainable_token_indices": [5, 6]}, "trainable_token_indices is set"),
    "embeddings": (
        {"target_modules": rf"{DECODER}|.*\.embed_tokens"},
        r"embed_tokens\.base_layer\.weight is no factor",
    ),
    "per-layer embeddings": (
        {"target_modules": rf"{DECODER}|.*\.per_layer_model_projection"},
        r"per_layer_model_projection\.lora_A.weight is no factor",
    ),
    "head": ({"target_modules": rf"{DECODER}|lm_head"}, r"lm_head\.base_layer\.weight is no factor"),
    "changed base": ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'.*path_initial_model"),
    "activated": ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens is set"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", MADE)
def test_made_by_peft(models: Models, tmp_path: Path, case: str) -> None:
    config, word = MADE[case]
    peft_adapter(models("e2b-text"), tmp_path / "theirs", **config)
    refused(tmp_path / "theirs", "peft", word)


def renamed(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: edit_tensors(folder, lambda t: {k.replace(old, new): v for k, v in t.items()})


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return lambda folder: edit_tensors(folder, lambda t: {k: change(v) if k == name else v for k, v in t.items()})


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def cut(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


NO_WEIGHTS = r"no adapter_model.safetensors \(an adapter_model.bin is a pickle.*safe_serialization=True"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickle": (pickled, NO_WEIGHTS),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), NO_WEIGHTS),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "no adapter_config.json"),
    "no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "unreadable adapter_config.json"),
    "cut": (cut, "unreadable adapter_model.safetensors"),
    "empty": (lambda f: edit_tensors(f, lambda t: {}), "adapts no linear module"),
    "AdaLoRA": (lambda f: edit_config(f, peft_type="ADALORA"), "peft_type 'ADALORA'"),
    "no type": (lambda f: edit_config(f, peft_type=None), "peft_type None"),
    "mlx-lm's": (lambda f: (f / "adapter_config.json").write_text('{"fine_tune_type": "lora"}'), "--from mlx-lm"),
    "replicated": (lambda f: edit_config(f, layer_replication=[[0, 2], [1, 3]]), "layer_replication is set"),
    "parameters": (lambda f: edit_config(f, target_parameters=["experts.up"]), "target_parameters is set"),
    "of the future": (lambda f: edit_config(f, use_quantum_lora=True), "use_quantum_lora is set"),
    "wrong rank": (lambda f: edit_config(f, r=8), r"lora_A \[4, .*says rank 8"),
    "no rank": (lambda f: edit_config(f, r=0), "unreadable adapter_config.json"),
    "no pattern": (lambda f: edit_config(f, rank_pattern={"(": 4}), "unreadable adapter_config.json"),
    "no alpha": (lambda f: edit_config(f, lora_alpha=None), "unreadable adapter_config.json"),
    "no dropout": (lambda f: edit_config(f, lora_dropout=1.5), "unreadable adapter_config.json"),
    "no base": (lambda f: edit_config(f, base_model_name_or_path=None), r"does not name its base; give it \(--base"),
    "base gone": (lambda f: edit_config(f, base_model_name_or_path="./gone"), "base ./gone: no such folder.*--base"),
    "no lora_B": (renamed(f"{UP}.lora_B", f"{UP}.lora_C"), "lora_C.weight is no factor"),
    "half": (lambda f: edit_tensors(f, lambda t: {k: v for k, v in t.items() if k != f"{UP}.lora_B.weight"}),
             r"up_proj has lora_a, not lora_a, lora_b once"),
    "DoRA without lengths": (lambda f: edit_config(f, use_dora=True), "has lora_a, lora_b, not lora_a, lora_b, m once"),
    "norms": (renamed("1.mlp.up_proj", "1.input_layernorm"), "layers.1.input_layernorm, which .* does not have"),
    "another depth": (renamed("layers.6.", "layers.9."), "layers.9.* which .* does not have"),
    "another width": (changed(f"{UP}.lora_A.weight", lambda v: v[:, :32]),
                      r"lora_a \[32, 4\].*up_proj, which is \[96, 64\]"),
    "a scalar": (changed(f"{UP}.lora_A.weight", lambda v: v[0, 0]), r"lora_A \[\]"),
    "no matrix": (changed(f"{UP}.lora_A.weight", lambda v: v[:, 0]), r"lora_a \[4\]"),
    "numbers": (changed(f"{UP}.lora_A.weight", lambda v: v.to(torch.int32)), "is mlx.core.int32"),
    "diverged": (changed(f"{UP}.lora_B.weight", lambda v: v * torch.nan), "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged(theirs: Path, damage: str) -> None:
    change, word = DAMAGES[damage]
    change(theirs)
    refused(theirs, "peft", word)


def test_same_module_twice(theirs: Path) -> None:
    """Saved under the names of both classes."""
    edit_tensors(theirs, lambda t: t | {k.replace(".layers", ".language_model.layers"): v + 0 for k, v in t.items()})
    refused(theirs, "peft", "lora_a, lora_b once")


def test_adapter_of_another_model(theirs: Path, models: Models) -> None:
    refused(theirs, "peft", "which is .* in|does not have", base=str(models("e4b")))
    refused(theirs, "peft", "no config.json", base=str(theirs))


def make_peft(adapter: Path) -> None:
    edit_config(adapter, peft_type="LORA")


def scale_layers(adapter: Path) -> None:
    found = dict(mx.load(str(adapter / lora.WEIGHTS)))
    mx.save_safetensors(
        str(adapter / lora.WEIGHTS), {k: v * (2 if "layer_scalar" in k else 1) for k, v in found.items()}
    )


MLX_LM: dict[str, tuple[Callable[[Path], Any], str]] = {
    "PEFT's": (make_peft, "--from peft"),
    "no config": (lambda a: (a / lora.CONFIG).unlink(), "no adapter_config.json"),
    "no weights": (lambda a: (a / lora.WEIGHTS).unlink(), "no adapters.safetensors"),
    "no scale": (lambda a: edit_config(a, lora_parameters={"rank": 4}), "unreadable adapter_config.json"),
    "no base": (lambda a: edit_config(a, model=None), "does not name its base"),
    "wrong rank": (lambda a: edit_config(a, lora_parameters={"rank": 8, "scale": 2.0}), "and rank 8"),
    "DoRA without m": (lambda a: edit_config(a, fine_tune_type="dora"), "is not of lora_a, lora_b, m"),
    "embeddings": (
        lambda a: rename_tensors(a, lambda k: k.replace("layers.1.mlp.up_proj", "embed_tokens")),
        "embed_tokens.lora_.* cannot be held",
    ),
    "another depth": (lambda a: rename_tensors(a, lambda k: k.replace("layers.6", "layers.9")), "does not have"),
}


@pytest.mark.parametrize("damage", MLX_LM)
def test_damaged_mlx_lm(adapters: Path, damage: str) -> None:
    change, word = MLX_LM[damage]
    change(adapters)
    refused(adapters, "mlx-lm", word)


def test_mlx_lm_full_training(models: Models, tmp_path: Path) -> None:
    """layer_scalar is a parameter in mlx-lm; where it was trained, no other form can tell it."""
    mlx_lm_adapter(models("e2b-text"), tmp_path / "full", kind="full", layers=2)
    refused(tmp_path / "full", "mlx-lm", "layer_scalar is not the base's", base=str(models("e4b-text")))
    scale_layers(tmp_path / "full")
    refused(tmp_path / "full", "mlx-lm", "layer_scalar is not the base's: trained, it cannot be held")
    rename_tensors(tmp_path / "full", lambda k: k.replace("layer_scalar", "mlp.up_proj.lora_a"))
    refused(tmp_path / "full", "mlx-lm", "lora_a cannot be held")
    mlx_lm_adapter(models("e2b-text"), tmp_path / "again", kind="full", layers=2)
    rename_tensors(tmp_path / "again", lambda k: k.replace("layers.6.mlp", "layers.9.mlp"))
    refused(tmp_path / "again", "mlx-lm", r"layers\.9\.mlp\..*which .* has not")


def test_run_on_a_quantised_base(models: Models, tmp_path: Path) -> None:
    random_adapter(models("wide"), tmp_path / "run", quantize="affine4")
    refused(tmp_path / "run", "mlx-lm", "a run folder of mlx-gemma; use it as it is")


@pytest.mark.parametrize("taken", ["out", "out.part"])
def test_output_exists(theirs: Path, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(UserError, match=f"{taken}: (exists|is left over).*--out"):
        import_adapter(str(theirs), "peft", out=tmp_path / "out")
    assert (tmp_path / taken).read_text() == "mine"


FULL = OSError(errno.ENOSPC, "No space left on device")
STOPS = [
    (at, e) for at in (lora.WEIGHTS, lora.CONFIG, "manifest.json", "comparison") for e in (FULL, KeyboardInterrupt())
]


@pytest.mark.parametrize(("at", "error"), [*STOPS, (lora.WEIGHTS, RuntimeError("[save_safetensors] mlx tells it so"))])
def test_stopped_half_way(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, error: BaseException
) -> None:
    """A full disk or Ctrl-C, wherever it comes: no folder is left."""

    def failing(*args: Any, **kwargs: Any) -> Any:
        raise error

    def failing_at(path: Path, value: Any) -> None:
        if path.name == at:
            raise error
        path.write_text(json.dumps(value, default=str))

    if at == lora.WEIGHTS:
        monkeypatch.setattr(foreign.mx, "save_safetensors", failing)
    elif at == "comparison":
        monkeypatch.setattr(programs, "transformers_model", failing)
    else:
        monkeypatch.setattr(foreign.run, "write_json", failing_at)
    (tmp_path / "kept").mkdir()
    for out in ("out", "out/two/three", "kept/out"):
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UserError):
            import_adapter(str(theirs), "peft", out=tmp_path / out)
        assert not list(tmp_path.glob("out*"))
    assert not list((tmp_path / "kept").iterdir())


def test_a_parent_that_somebody_else_uses_is_kept(tmp_path: Path) -> None:
    def stopped() -> None:
        with run.whole_folder(tmp_path / "runs/a/b") as part:
            (part / "file").write_text("x")
            (tmp_path / "runs/other").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["other"]


def test_a_single_file(tmp_path: Path) -> None:
    with run.whole_folder(tmp_path / "new/model.gguf", file=True) as part:
        (part / "of any name").write_text("x")
        assert part.parent == tmp_path / "new"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model.gguf"]
    with pytest.raises(UserError, match=r"model\.gguf: exists; remove it or choose another output"):
        run.check_new(tmp_path / "new/model.gguf")
    with pytest.raises(UserError, match="cannot be written"):
        run.check_new(tmp_path / ("x" * 300) / "out")


@pytest.mark.parametrize("form", ["peft", "mlx-lm"])
@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)])
def test_the_other_program_computes_no_numbers(
    theirs: Path, adapters: Path, monkeypatch: pytest.MonkeyPatch, form: str, which: tuple[int, ...]
) -> None:
    name = "_peft" if form == "peft" else "_mlx_lm"
    real = getattr(counterpart, name)

    def broken(*args: Any) -> Any:
        return tuple(v * np.float32("nan" if i in which else 1) for i, v in enumerate(real(*args)))

    monkeypatch.setattr(counterpart, name, broken)
    word = "its logits are not finite in " + ("transformers and peft" if form == "peft" else "mlx-lm")
    refused(theirs if form == "peft" else adapters, form, f"{word}; nothing was kept; check the adapter")


@pytest.mark.parametrize("name", ["e2b-text", "e2b-bf16"])
@pytest.mark.parametrize("factor", [0.0, 0.5, -1.0, 1.001])
def test_a_wrong_reading_is_found(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, factor: float
) -> None:
    """What the comparison is there for; a thousandth too much is seen, on a bfloat16 base too."""
    peft_adapter(models(name), tmp_path / "theirs")
    real = peft_read.fold

    def wrong(*args: Any) -> Any:
        arrays, rank, scale = real(*args)
        return arrays, rank, scale * factor

    monkeypatch.setattr(peft_read, "fold", wrong)
    refused(tmp_path / "theirs", "peft", "computes something else here than in transformers and peft")


def test_why_it_was_not_verified(theirs: Path, adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is told, in the manifest too; the run folder is made all the same."""
    with monkeypatch.context() as patch:
        patch.setattr(programs, "installed", lambda program: False)
        done = import_adapter(str(theirs), "peft", out=tmp_path / "a")
        assert done.unverified == "transformers and peft not installed"
        assert import_adapter(str(adapters), "mlx-lm", out=tmp_path / "b").unverified == "mlx-lm not installed"
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert (manifest["verified"], manifest["unverified"]) == (None, done.unverified)
    monkeypatch.setattr(counterpart, "wide_bytes", lambda source: 10**15)
    done = import_adapter(str(theirs), "peft", out=tmp_path / "c")
    assert str(done.unverified).startswith(
        "the base takes 1000000.0 GB in float32 in transformers, and this machine ha"
    )
    assert done.effect > 0.1


def test_base_in_mlx_lms_names(models: Models, tmp_path: Path) -> None:
    """As mlx_lm.fuse writes a model: ours loads it, transformers would compute with random weights."""
    import shutil

    base = Path(shutil.copytree(models("e2b"), tmp_path / "base"))
    weights = dict(mx.load(str(base / "model.safetensors")))
    text = {k.replace("model.language_model.", "language_model.model."): v for k, v in weights.items()}
    mx.save_safetensors(str(base / "model.safetensors"), text)
    peft_adapter(models("e2b"), tmp_path / "theirs")
    done = import_adapter(str(tmp_path / "theirs"), "peft", str(base), tmp_path / "out")
    assert done.unverified == "the base is in mlx-lm's own names, which transformers does not load"


def test_base_of_bitsandbytes(theirs: Path, models: Models, writable: Callable[[str], Path]) -> None:
    """As QLoRA adapters name it; --base is the way out."""
    base = writable("e2b-text")
    edit_base(base, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    edit_config(theirs, base_model_name_or_path=str(base))
    refused(theirs, "peft", r"quantised by bitsandbytes.*give the full-precision checkpoint of the same model \(--base")
    assert import_adapter(str(theirs), "peft", str(models("e2b-text")), theirs.parent / "out").gap


def test_no_such_adapter() -> None:
    with pytest.raises(ModelError, match="no such folder"):
        import_adapter("./gone", "peft")
