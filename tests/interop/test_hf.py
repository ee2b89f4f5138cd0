"""Exports are judged by transformers: it loads them clean, and computes what base + adapter computes here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logits import our_logits, reference_logits, reference_model
from safetensors.torch import load_file
from tiny_gemma4 import add_dead_kv, random_adapter, random_tokens, rename_tensors

from mlx_gemma.decode.generate import generate
from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.load import load
from mlx_gemma.interop import compare
from mlx_gemma.interop.export import export

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


@pytest.mark.parametrize("name", ["nano", "e2b", "e2b-bf16", "e2b-sharded", "e2b-text", "e4b", "e4b-text"])
def test_transformers_computes_base_plus_adapter(models: Models, tmp_path: Path, name: str) -> None:
    base, out = models(name), tmp_path / "out"
    adapted = our_logits(random_adapter(base, tmp_path / "run"), TOKENS)
    done = export(tmp_path / "run", "hf", out)

    found = reference_logits(out, TOKENS)
    assert np.abs(found - our_logits(load(str(out)), TOKENS)).max() < 1e-3
    gap, effect = np.abs(found - adapted), np.abs(our_logits(load(str(base)), TOKENS) - adapted)
    exact = weights(base)[an_up_proj(base)].dtype == torch.float32
    assert gap.mean() < (1e-5 if exact else 0.04) * adapted.std()
    assert gap.mean() < effect.mean() / 20

    assert done.path == out
    assert len(done.changes) == (38 if "e4b" in name else 41)
    assert done.gap.mean <= done.gap.largest
    assert done.gap.mean < done.effect / 20
    assert 0.05 < max(done.changes) < 0.5
    assert done.moved is None
    assert done.bytes == sum(p.stat().st_size for p in out.iterdir())


@pytest.mark.parametrize("name", ["nano", "e2b", "e2b-bf16", "e2b-sharded", "e4b-text"])
@pytest.mark.parametrize("kind", ["dora", "full"])
def test_other_kinds(models: Models, tmp_path: Path, name: str, kind: str) -> None:
    """DoRA's lengths go into the weights; full training replaces them, norms and per-layer projections included."""
    base, out = models(name), tmp_path / "out"
    adapted = our_logits(random_adapter(base, tmp_path / "run", kind=kind), TOKENS)
    done = export(tmp_path / "run", "hf", out)
    gap = np.abs(reference_logits(out, TOKENS) - adapted)
    exact = weights(base)[an_up_proj(base)].dtype == torch.float32
    assert gap.mean() < (1e-5 if exact else 0.04) * adapted.std()
    assert gap.mean() < done.effect / 10
    before, after = weights(base), weights(out)
    changed = {k.split(".")[-2] for k in before if not torch.equal(before[k], after[k])}
    norms = {"input_layernorm", "q_norm", "k_norm", "per_layer_input_gate", "post_per_layer_input_norm"}
    assert norms & changed == (norms if kind == "full" else set())
    assert all(torch.equal(before[k], after[k]) for k in before if "layers." not in k or "layer_scalar" in k)


@pytest.mark.parametrize("scale", [2.0, 11.3137])
def test_dora_merges_as_peft(models: Models, tmp_path: Path, scale: float) -> None:
    """The merged weights are those of PEFT's merge_and_unload on transformers' model: 1e-6; its logits ours: 1e-4."""
    from peft import LoraConfig, get_peft_model

    base, run = models("e2b-text"), tmp_path / "run"
    random_adapter(base, run, kind="dora")
    edit_json(run / "adapter_config.json", lambda config: config["lora_parameters"].update(scale=scale))
    adapted = our_logits(load(str(run)), TOKENS)
    export(run, "hf", tmp_path / "out")
    targets = r"model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
    config = LoraConfig(r=4, lora_alpha=4 * scale, use_dora=True, target_modules=targets)
    theirs = get_peft_model(reference_model(base), config).eval()
    adapter, places = weights(run), dict(theirs.named_parameters())
    names = {"lora_a": "lora_A.default.weight", "lora_b": "lora_B.default.weight"}
    with torch.no_grad():
        for name, value in adapter.items():
            module, leaf = name.rsplit(".", 1)
            place = names.get(leaf, "lora_magnitude_vector.default.weight")
            places[f"base_model.model.{module}.{place}"].copy_(value.T)
        assert len([k for k in places if "lora_" in k]) == len(adapter)
        found = theirs(torch.tensor([TOKENS])).logits[0].numpy()
    assert np.abs(found - adapted).max() < 1e-4 * max(1.0, np.abs(adapted).max())
    merged = theirs.merge_and_unload().state_dict()
    for name, value in weights(tmp_path / "out").items():
        torch.testing.assert_close(value, merged[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_trained_on_a_quantised_base(models: Models, tmp_path: Path, kind: str) -> None:
    """T25: merged into the full-precision weights it was not trained on; how much that changes is measured."""
    run = tmp_path / "run"
    trained = our_logits(random_adapter(models("wide"), run, kind=kind, quantize="affine4"), TOKENS)
    done = export(run, "hf", tmp_path / "out")
    exported = reference_logits(tmp_path / "out", TOKENS)
    plain = our_logits(load(str(models("wide")), adapter=run, quantize="none"), TOKENS)
    assert np.abs(exported - plain).mean() < 1e-4
    assert done.gap.mean < 1e-4
    moved = np.abs(trained - plain).mean()
    assert done.moved is not None
    assert 0.5 * moved < done.moved < 2 * moved, "other tokens, the same size"
    assert (our_logits(load(str(run)), TOKENS) == trained).all()


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def an_up_proj(folder: Path) -> str:
    return next(name for name in weights(folder) if name.endswith("layers.1.mlp.up_proj.weight"))


@pytest.mark.parametrize("name", ["nano", "e2b-bf16", "e2b-sharded", "e2b-text"])
def test_only_adapted_weights_change(models: Models, tmp_path: Path, name: str) -> None:
    """Same files, names, shapes and dtypes; towers, norms and embeddings to the bit; merged values as torch's."""
    base, out = models(name), tmp_path / "out"
    random_adapter(base, tmp_path / "run", targets=("q_proj", "down_proj"))
    export(tmp_path / "run", "hf", out)
    files = [p for p in base.iterdir() if p.name != "README.md"]  # a model card is the base's own
    assert sorted(p.name for p in out.iterdir()) == sorted([*(p.name for p in files), "README.md"])
    for file in files:
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


@pytest.mark.parametrize("exported", [False, True])
def test_same_greedy_text_on_nano(models: Models, tmp_path: Path, exported: bool) -> None:
    """Ours and transformers' greedy answers to 20 prompts are the same tokens, stop included: base and export."""
    out = models("nano")
    if exported:
        random_adapter("nano", tmp_path / "run", size=0.01)
        out = export(tmp_path / "run", "hf", tmp_path / "out").path
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
    export(tmp_path / "run", "hf", tmp_path / "out")
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
    export(tmp_path / "run", "hf", tmp_path / "out")
    rename_tensors(tmp_path / "run", lambda key: key.replace(own, other, 1))
    export(tmp_path / "run", "hf", tmp_path / "out-2", base=str(models(name)))
    assert same_bytes(tmp_path / "out", tmp_path / "out-2")


def same_bytes(a: Path, b: Path) -> bool:
    return all((b / p.name).read_bytes() == p.read_bytes() for p in a.iterdir() if p.name != "README.md")


def test_fresh_adapter_changes_nothing(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b-bf16"), tmp_path / "run", size=0.0)
    done = export(tmp_path / "run", "hf", tmp_path / "out")
    assert done.gap.largest == done.effect == max(done.changes) == 0.0
    assert same_bytes(models("e2b-bf16"), tmp_path / "out")


def test_difference() -> None:
    one = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
    gap = compare.difference(one + np.array([[0.0, 0.0], [0.0, 4.0]], np.float32), one)
    assert (gap.largest, gap.mean, gap.agreement) == (4.0, 1.0, 0.5)
    with pytest.raises(ModelError, match="not finite"):
        compare.difference(one * np.nan, one)
