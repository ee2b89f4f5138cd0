"""Exports that cannot be: one line that says why, and nothing left behind."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from logits import reference_model
from tiny_gemma4 import edit_config, edit_weights, random_adapter, rename_tensors

from mlx_gemma import platform
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.interop import compare, hf, merge, stream
from mlx_gemma.interop import export as exporting
from mlx_gemma.interop.export import export
from mlx_gemma.interop.merge import read_adapter
from mlx_gemma.interop.stream import Piece

Models = Callable[[str], Path]


@pytest.fixture
def run(models: Models, tmp_path: Path) -> Path:
    random_adapter(models("e2b-bf16"), tmp_path / "run")
    return tmp_path / "run"


def left_behind(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith("out")]


def edit(adapter: Path, **values: Any) -> None:
    config = json.loads((adapter / lora.CONFIG).read_text())
    (adapter / lora.CONFIG).write_text(json.dumps(config | values))


def scale_by(factor: float) -> Callable[[Path], Any]:
    def change(adapter: Path) -> None:
        found: dict[str, mx.array] = dict(mx.load(str(adapter / lora.WEIGHTS)))
        mx.save_safetensors(str(adapter / lora.WEIGHTS), {k: v * factor for k, v in found.items()})

    return change


def onto(adapter: Path, **values: Any) -> None:
    """Point the adapter at a copy of its base with a changed config.json."""
    base = json.loads((adapter / lora.CONFIG).read_text())["model"]
    edit_config(Path(shutil.copytree(base, adapter / "base")), **values)
    edit(adapter, model=str(adapter / "base"))


def truncate_base(adapter: Path) -> None:
    onto(adapter)
    file = adapter / "base/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


UP = "language_model.model.layers.1.mlp.up_proj"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no adapter": (lambda r: (r / lora.WEIGHTS).unlink(), "no adapters.safetensors"),
    "no config": (lambda r: (r / lora.CONFIG).unlink(), "no adapter_config.json"),
    "cut adapter": (lambda r: (r / lora.WEIGHTS).write_bytes(b"1234567890"), "unreadable adapters.safetensors"),
    "empty adapter": (lambda r: mx.save_safetensors(str(r / lora.WEIGHTS), {}), "no tensors|unreadable"),
    "DoRA without m": (
        lambda r: edit(r, fine_tune_type="dora"),
        "give an adapter with lora_a and lora_b and m on layers",
    ),
    "full with factors": (lambda r: edit(r, fine_tune_type="full"), "give an adapter with weight on layers"),
    "of no known kind": (lambda r: edit(r, fine_tune_type="vera"), "fine_tune_type 'vera'"),
    "base not named": (lambda r: edit(r, model=None), "does not name its base"),
    "base gone": (lambda r: edit(r, model="./gone"), "no such folder"),
    "base is cut": (truncate_base, "does not end where its last tensor does"),
    "no such layer": (lambda r: rename_tensors(r, lambda k: k.replace("layers.1.mlp", "layers.9.mlp")), "layers.9.mlp"),
    "outside of the layers": (lambda r: rename_tensors(r, lambda k: k.replace(UP, "lm_head")), "lm_head"),
    "a tower": (lambda r: rename_tensors(r, lambda k: k.replace(UP, "vision_tower.layers.1.up_proj")), "vision_tower"),
    "no lora_b": (lambda r: rename_tensors(r, lambda k: k.replace(f"{UP}.lora_b", f"{UP}.lora_c")), f"{UP} cannot be"),
    "dead K/V": (
        lambda r: rename_tensors(r, lambda k: k.replace("layers.1.self_attn.k_proj", "layers.5.self_attn.k_proj")),
        "layers.5.self_attn.k_proj",
    ),
    "quantised base": (lambda r: onto(r, quantization={"bits": 4, "group_size": 64}), "full-precision checkpoint"),
    "quantised by others": (lambda r: onto(r, quantization_config={"quant_method": "awq"}), "is quantised"),
    "diverged training": (scale_by(float("nan")), "not finite"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_adapter(run: Path, tmp_path: Path, damage: str) -> None:
    change, word = DAMAGES[damage]
    change(run)
    with pytest.raises(UserError, match=word) as caught:
        export(run, "hf", tmp_path / "out")
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    assert not left_behind(tmp_path)


def test_adapter_of_another_size(run: Path, models: Models, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="adapted modules have no weight"):
        export(run, "hf", tmp_path / "out", base=str(models("e4b")))
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("taken", ["out", "out.part"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_output_exists(run: Path, tmp_path: Path, taken: str, kind: str) -> None:
    path = tmp_path / taken
    path.write_text("mine") if kind == "file" else path.mkdir()
    with pytest.raises(UserError, match=f"{taken}: (exists|is left over).*remove it"):
        export(run, "hf", tmp_path / "out")
    assert left_behind(tmp_path) == [taken]


def test_output_below_a_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export(run, "hf", tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("error", "seen", "word"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), UserError, "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system"), UserError, "cannot be written"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (MemoryError(), MemoryError, ""),
    ],
)
def test_stopped_half_way(
    run: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, seen: Any, word: str
) -> None:
    """The third shard fails: whatever the cause, no folder is left, and the base is as it was."""
    base, real, calls = models("e2b-sharded"), hf.write_safetensors, []

    def failing(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise error
        real(*args)

    before = {p.name: p.read_bytes() for p in base.iterdir()}
    monkeypatch.setattr(hf, "write_safetensors", failing)
    with pytest.raises(seen, match=word or None):
        export(run, "hf", tmp_path / "out", base=str(base))
    assert not left_behind(tmp_path)
    assert {p.name: p.read_bytes() for p in base.iterdir()} == before


@pytest.mark.parametrize("factor", [0.0, 0.7, 0.85, -1.0, 1.2])
@pytest.mark.parametrize(("base", "size"), [("e2b", 0.05), ("e2b", 0.005), ("e2b-bf16", 0.05), ("e2b-bf16", 0.005)])
def test_wrong_merge_is_refused(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, size: float, factor: float
) -> None:
    """A merge with a wrong scale, or none; also of an adapter that does little more than bfloat16's rounding."""
    random_adapter(models(base), tmp_path / "run", size=size)
    with monkeypatch.context() as patch:
        real = hf.pieces
        patch.setattr(hf, "pieces", lambda file, a: real(file, replace(a, scale=a.scale * factor)))
        with pytest.raises(ModelError, match=r"is not base \+ adapter"):
            export(tmp_path / "run", "hf", tmp_path / "out")
    assert not left_behind(tmp_path)
    done = export(tmp_path / "run", "hf", tmp_path / "out")
    print(f"{base} {size}: {done.survived:.4f} of the effect, rounding {done.gap.mean / done.effect:.3f}")


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_wrong_formula_is_refused(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, kind: str
) -> None:
    """One that the writer and the check would share, so that both would agree."""
    random_adapter(models("e2b-bf16"), tmp_path / "run", size=0.005, kind=kind)
    real = merge.merge
    for module in (merge, stream):
        monkeypatch.setattr(module, "merge", lambda w, arrays, scale: real(w, arrays, scale * 0.9))
    with pytest.raises(ModelError, match=r"is not what the adapter computes"):
        export(tmp_path / "run", to, tmp_path / "out", force=True)
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("to", ["hf", "gguf", "mlx", "peft", "gguf-lora"])
def test_where_the_checkpoint_s_dtype_computes(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """As on a GPU: bfloat16 computes in bfloat16, here on the CPU."""
    monkeypatch.setattr(platform, "compute_dtype", lambda: None)
    random_adapter(models("wide-bf16"), tmp_path / "run")
    for i, how in enumerate([{}, {"quantize": "affine8"}] if to == "mlx" else [{}]):
        done = export(tmp_path / "run", to, tmp_path / f"out-{i}", **how)  # type: ignore[arg-type]
        assert 0.9 < done.survived < 1.1
    monkeypatch.setattr(exporting, "read_adapter", lambda run: replace(a := read_adapter(run), scale=a.scale * 0.7))
    with pytest.raises(ModelError, match=r"is not base \+ adapter"):
        export(tmp_path / "run", to, tmp_path / "out")


@pytest.mark.parametrize("factor", [0.7, 1.2])
@pytest.mark.parametrize(
    ("to", "how"), [("gguf", {"dtype": "Q8_0"}), ("mlx", {"quantize": "affine8"}), ("mlx", {"quantize": "affine4"})]
)
def test_wrong_scale_is_no_rounding(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, how: dict[str, str], factor: float
) -> None:
    """Less than what quantising alone takes from the adapter, and still told from it."""
    random_adapter(models("wide-bf16"), tmp_path / "run")
    read = exporting.read_adapter
    monkeypatch.setattr(exporting, "read_adapter", lambda run: replace(a := read(run), scale=a.scale * factor))
    with pytest.raises(ModelError, match=r"is not base \+ adapter"):
        export(tmp_path / "run", to, tmp_path / "out", force=True, **how)  # type: ignore[arg-type]
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("to", ["peft", "gguf-lora"])
def test_a_wrong_scale_of_an_adapter_s_form_is_refused(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """On a bfloat16 base, too: nothing is merged, so nothing is rounded."""
    random_adapter(models("e2b-bf16"), tmp_path / "run", size=0.005)
    read = exporting.read_adapter
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "read_adapter", lambda run: replace(a := read(run), scale=a.scale * 1.02))
        with pytest.raises(ModelError, match=r"is not base \+ adapter"):
            export(tmp_path / "run", to, tmp_path / "out")
    assert not left_behind(tmp_path)
    export(tmp_path / "run", to, tmp_path / "out")


def test_a_damaged_tensor_beside_the_quantised_ones_is_refused(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_adapter(models("wide"), tmp_path / "run")
    real = Piece.data

    def data(self: Piece, dtype: str) -> Any:
        for part in real(self, dtype):
            yield bytes(len(part)) if self.name.endswith("per_layer_projection_norm.weight") else part

    monkeypatch.setattr(Piece, "data", data)
    with pytest.raises(ModelError, match=r"is not base \+ adapter: "):
        export(tmp_path / "run", "mlx", tmp_path / "out", quantize="affine8", force=True)
    assert not left_behind(tmp_path)


def test_a_base_in_mlx_lm_s_names_is_no_hugging_face_folder(writable: Callable[[str], Path], tmp_path: Path) -> None:
    """T28: transformers loads such a folder with random weights and no error, and our own reader would not notice."""
    base = writable("e2b")
    edit_weights(
        base,
        lambda w: [
            w.__setitem__(k.replace("model.language_model.", "language_model.model."), w.pop(k))
            for k in list(w)
            if "language_model" in k or w.pop(k) is None
        ],
    )
    random_adapter(base, tmp_path / "run")
    with pytest.raises(ModelError, match=r"mlx-lm's names \(language_model\..*; add --text-only"):
        export(tmp_path / "run", "hf", tmp_path / "out")
    out = export(tmp_path / "run", "hf", tmp_path / "out", text_only=True).path
    reference_model(out)


def test_a_base_that_has_changed_is_refused(models: Models, tmp_path: Path, writable: Callable[[str], Path]) -> None:
    base = writable("e2b")
    random_adapter(base, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"base": {"digest": Checkpoint("", base).digest}}))
    export(tmp_path / "run", "hf", tmp_path / "out")
    edit_weights(
        base, lambda w: w.__setitem__("model.language_model.norm.weight", w["model.language_model.norm.weight"] * 1.1)
    )
    with pytest.raises(ModelError, match=r"the base has changed since the run was trained on it; .*--base"):
        export(tmp_path / "run", "hf", tmp_path / "out-2")
    export(tmp_path / "run", "hf", tmp_path / "out-2", base=str(base))


def test_nan_on_either_side_is_no_agreement() -> None:
    one = np.ones((2, 3), np.float32)
    for found, reference in ((one * np.nan, one), (one, one * np.nan)):
        with pytest.raises(ModelError, match="not finite"):
            compare.difference(found, reference)
