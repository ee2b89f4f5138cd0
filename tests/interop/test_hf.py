"""Exports are judged by transformers: it loads them clean, and computes what base + adapter computes here."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from conftest import our_logits, random_adapter, random_tokens, reference_logits, reference_model
from gemma4.test_load import add_dead_kv, edit_config
from safetensors.torch import load_file

from mlx_gemma.decode.generate import generate
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import load
from mlx_gemma.interop import hf, verify

Models = Callable[[str], Path]
TOKENS = random_tokens(60)
PROMPTS = [f"Write a function that {what}." for what in (
    "adds two numbers", "reverses a string", "counts the vowels", "sorts a list", "finds the largest number",
    "says hello", "reads a file", "squares a number", "joins words", "checks for a palindrome",
)] + [f"Print {what}" for what in (
    "the numbers from 1 to 10.", "x", "the sum of a list", "every key of a dictionary.", "a triangle of stars",
    "the length of `name`.", "each line of a file", "today's date", "the letters of 'abc'", "2 ** 8",
)]  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def left_behind(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith("out")]


@pytest.mark.parametrize("name", ["nano", "e2b", "e2b-bf16", "e2b-sharded", "e2b-text", "e4b", "e4b-text"])
def test_transformers_computes_base_plus_adapter(models: Models, tmp_path: Path, name: str) -> None:
    base, out = models(name), tmp_path / "out"
    adapted = our_logits(random_adapter(base, tmp_path / "run"), TOKENS)
    done = hf.export(tmp_path / "run", out)

    found = reference_logits(out, TOKENS)
    assert np.abs(found - our_logits(load(str(out)), TOKENS)).max() < 1e-3
    gap, effect = np.abs(found - adapted), np.abs(our_logits(load(str(base)), TOKENS) - adapted)
    assert gap.mean() < (1e-5 if weights(base)[an_up_proj(base)].dtype == torch.float32 else 0.04)
    assert gap.mean() < effect.mean() / 20

    assert done.folder == out
    assert done.merged == (38 if "e4b" in name else 41)
    assert done.mean_difference <= done.max_difference
    assert done.mean_difference < done.mean_effect / 20
    assert 0.05 < done.largest_change < 0.5
    assert done.bytes == sum(p.stat().st_size for p in out.iterdir())


def an_up_proj(folder: Path) -> str:
    return next(name for name in weights(folder) if name.endswith("layers.1.mlp.up_proj.weight"))


@pytest.mark.parametrize("name", ["nano", "e2b-bf16", "e2b-sharded", "e2b-text"])
def test_only_adapted_weights_change(models: Models, tmp_path: Path, name: str) -> None:
    """Same files, names, shapes and dtypes; towers, norms and embeddings to the bit; merged values as torch has them."""
    base, out = models(name), tmp_path / "out"
    random_adapter(base, tmp_path / "run", targets=("q_proj", "down_proj"))
    hf.export(tmp_path / "run", out)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in base.iterdir())
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            assert (out / file.name).read_bytes() == file.read_bytes()
    before, after, adapter = weights(base), weights(out), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert {k.split(".")[-2] for k in changed} == {"q_proj", "down_proj"}
    assert len(changed) == 14
    for key in changed:
        stem = key.removesuffix(".weight").replace("model.language_model.", "language_model.model.")
        exact = before[key].float() + 2.0 * (adapter[f"{stem}.lora_a"] @ adapter[f"{stem}.lora_b"]).T
        assert after[key].dtype == before[key].dtype
        if before[key].dtype == torch.bfloat16:  # float32 sums in another order may fall on the other side of a half
            assert (after[key] == exact.bfloat16()).float().mean() > 0.999
        torch.testing.assert_close(after[key].float(), exact, rtol=2**-8, atol=1e-6)


def test_same_greedy_text_on_nano(models: Models, tmp_path: Path) -> None:
    """Ours and transformers' greedy answers to 20 prompts are the same tokens, stop included."""
    random_adapter("nano", tmp_path / "run", size=0.01)
    out = hf.export(tmp_path / "run", tmp_path / "out").folder
    ours, theirs = load(str(out)), reference_model(out)
    for prompt in PROMPTS:
        ids = ours.template.prompt([{"role": "user", "content": prompt}])
        with torch.no_grad():
            whole = theirs.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=24)[0].tolist()
        answer = generate(ours, prompt, max_tokens=24)
        wanted = whole[len(ids) :]
        assert answer.tokens == (wanted[:-1] if answer.finish == "stop" else wanted), prompt
        assert (wanted[-1] in ours.stop_tokens) == (answer.finish == "stop")


def test_dead_kv_is_carried_over(writable: Callable[[str], Path], tmp_path: Path) -> None:
    base = writable("e2b")
    add_dead_kv(base)
    random_adapter(base, tmp_path / "run")
    hf.export(tmp_path / "run", tmp_path / "out")
    before, after = weights(base), weights(tmp_path / "out")
    dead = [k for k in before if any(f"s.{i}.self_attn.{p}_proj" in k for i in (3, 4, 5, 6) for p in "kv")]
    assert len([k for k in dead if "language_model" in k]) == 8
    assert all(torch.equal(before[k], after[k]) for k in dead)
    reference_model(tmp_path / "out")


@pytest.mark.parametrize(("name", "own", "other"), [
    ("e2b", "language_model.model.", "model."),
    ("e2b-text", "model.", "language_model.model."),
])  # fmt: skip
def test_adapter_of_the_other_class(models: Models, tmp_path: Path, name: str, own: str, other: str) -> None:
    """An adapter trained on the text-only class goes onto the multimodal checkpoint, and back."""
    random_adapter(models(name), tmp_path / "run")
    hf.export(tmp_path / "run", tmp_path / "out")
    rename(tmp_path / "run", lambda key: key.replace(own, other, 1))
    hf.export(tmp_path / "run", tmp_path / "out-2", base=str(models(name)))
    assert same_bytes(tmp_path / "out", tmp_path / "out-2")


def same_bytes(a: Path, b: Path) -> bool:
    return all((b / p.name).read_bytes() == p.read_bytes() for p in a.iterdir())


def rename(adapter: Path, change: Callable[[str], str]) -> None:
    found: dict[str, mx.array] = dict(mx.load(str(adapter / lora.WEIGHTS)))
    mx.save_safetensors(str(adapter / lora.WEIGHTS), {change(k): v for k, v in found.items()})


def edit(adapter: Path, **values: Any) -> None:
    config = json.loads((adapter / lora.CONFIG).read_text())
    (adapter / lora.CONFIG).write_text(json.dumps(config | values))


@pytest.fixture
def run(models: Models, tmp_path: Path) -> Path:
    random_adapter(models("e2b-bf16"), tmp_path / "run")
    return tmp_path / "run"


def test_fresh_adapter_changes_nothing(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b-bf16"), tmp_path / "run", size=0.0)
    done = hf.export(tmp_path / "run", tmp_path / "out")
    assert done.max_difference == done.mean_effect == done.largest_change == 0.0
    assert same_bytes(models("e2b-bf16"), tmp_path / "out")


# Bad inputs: one line, and nothing left behind.


def scale_by(factor: float) -> Callable[[Path], Any]:
    def change(adapter: Path) -> None:
        found: dict[str, mx.array] = dict(mx.load(str(adapter / lora.WEIGHTS)))
        mx.save_safetensors(str(adapter / lora.WEIGHTS), {k: v * factor for k, v in found.items()})

    return change


def onto(adapter: Path, **values: Any) -> None:
    """Point the adapter at a copy of its base with a changed config.json."""
    import shutil

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
    "DoRA": (lambda r: edit(r, fine_tune_type="dora"), "dora adapter cannot be merged yet"),
    "full fine-tune": (lambda r: edit(r, fine_tune_type="full"), "full adapter cannot be merged"),
    "base not named": (lambda r: edit(r, model=None), "does not name its base"),
    "base gone": (lambda r: edit(r, model="./gone"), "no such folder"),
    "base is cut": (truncate_base, "does not end where its last tensor does"),
    "no such layer": (lambda r: rename(r, lambda k: k.replace("layers.1.mlp", "layers.9.mlp")), "layers.9.mlp"),
    "outside of the layers": (lambda r: rename(r, lambda k: k.replace(UP, "lm_head")), "lm_head"),
    "a tower": (lambda r: rename(r, lambda k: k.replace(UP, "vision_tower.layers.1.up_proj")), "vision_tower"),
    "no lora_b": (lambda r: rename(r, lambda k: k.replace(f"{UP}.lora_b", f"{UP}.lora_c")), f"{UP} cannot be"),
    "dead K/V": (
        lambda r: rename(r, lambda k: k.replace("layers.1.self_attn.k_proj", "layers.5.self_attn.k_proj")),
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
        hf.export(run, tmp_path / "out")
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    assert not left_behind(tmp_path)


def test_adapter_of_another_size(run: Path, models: Models, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="adapted modules have no weight|do not match"):
        hf.export(run, tmp_path / "out", base=str(models("e4b")))
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("taken", ["out", "out.part"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_output_exists(run: Path, tmp_path: Path, taken: str, kind: str) -> None:
    path = tmp_path / taken
    path.write_text("mine") if kind == "file" else path.mkdir()
    with pytest.raises(UserError, match=f"{taken}: (exists|is left over).*remove it"):
        hf.export(run, tmp_path / "out")
    assert left_behind(tmp_path) == [taken]


def test_output_below_a_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        hf.export(run, tmp_path / "file" / "out")


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
    base, real, calls = models("e2b-sharded"), hf.merge_file, []

    def failing(*args: Any) -> list[float]:
        calls.append(args)
        if len(calls) == 3:
            raise error
        return real(*args)

    before = weights(base)
    monkeypatch.setattr(hf, "merge_file", failing)
    with pytest.raises(seen, match=word):
        hf.export(run, tmp_path / "out", base=str(base))
    assert not left_behind(tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in weights(base).items())


@pytest.mark.parametrize("factor", [0.0, 0.5, -1.0, 1.5])
def test_wrong_merge_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """A merge with a wrong scale, or none, is what the tolerance is there to find."""
    real = hf.merge_file
    monkeypatch.setattr(hf, "merge_file", lambda s, t, a: real(s, t, replace(a, scale=a.scale * factor)))
    with pytest.raises(ModelError, match=r"is not base \+ adapter"):
        hf.export(run, tmp_path / "out")
    assert not left_behind(tmp_path)


def test_difference() -> None:
    one = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
    gap = verify.difference(one + np.array([[0.0, 0.0], [0.0, 4.0]], np.float32), one)
    assert (gap.largest, gap.mean, gap.agreement) == (4.0, 1.0, 0.5)
    with pytest.raises(ModelError, match="not finite"):
        verify.difference(one * np.nan, one)
