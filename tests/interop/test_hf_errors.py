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
import pytest
from tiny_gemma4 import edit_config, random_adapter, rename_tensors

from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.interop import hf
from mlx_gemma.interop.export import export

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


@pytest.mark.parametrize("factor", [0.0, 0.5, -1.0, 1.5])
def test_wrong_merge_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """A merge with a wrong scale, or none, is what the tolerance is there to find."""
    real = hf.pieces
    monkeypatch.setattr(hf, "pieces", lambda file, a: real(file, replace(a, scale=a.scale * factor)))
    with pytest.raises(ModelError, match=r"is not base \+ adapter"):
        export(run, "hf", tmp_path / "out")
    assert not left_behind(tmp_path)
