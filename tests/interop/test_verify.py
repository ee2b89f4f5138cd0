"""Two artefacts of any kinds, each in its own program; and the command that compares them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from logits import our_logits, reference_logits
from tiny_gemma4 import random_adapter, random_tokens

from mlx_gemma.cli import cli
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4.load import load
from mlx_gemma.interop import compare, counterpart, programs
from mlx_gemma.interop.artefact import identify
from mlx_gemma.interop.export import export
from mlx_gemma.interop.precision import BOUNDS, Bound, bound
from mlx_gemma.interop.verify import Verified, rounded, verify

Models = Callable[[str], Path]
SMALL = 0.005  # of an adapter that moves the logits by under 0.1 of their spread
PROMPTS = ["Write a function that adds two numbers.", "Print x"]
LLAMA = "llama.cpp" if find_spec("llama_cpp") else "mlx-gemma"


@pytest.fixture
def run(models: Models, tmp_path: Path) -> Path:
    random_adapter(models("e2b"), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("to", "kind", "precision", "program"),
    [
        ("hf", "hf", "F32", "transformers"),
        ("peft", "peft", "F32", "transformers + PEFT"),
        ("mlx", "hf", "F32", "transformers"),  # the text-only class in transformers' own names
        ("gguf", "gguf", "F32", LLAMA),
        ("gguf-lora", "gguf-lora", "F32", "mlx-gemma"),
    ],
)
@pytest.mark.parametrize("ours", [False, True])
def test_a_run_is_its_export(
    run: Path, models: Models, to: str, kind: str, precision: str, program: str, ours: bool
) -> None:
    path = export(run, to).path
    base = str(models("e2b")) if to == "gguf-lora" else None
    sides = identify(str(run)), identify(str(path), base)
    assert (sides[1].kind, sides[1].precision) == (kind, precision)
    found = verify(*sides, PROMPTS, ours=ours)
    assert found.programs == ("mlx-gemma", "mlx-gemma" if ours else program)
    assert found.equal
    assert found.same == found.prompts == 2
    wrong = verify(identify(str(models("e2b"))), sides[1], PROMPTS, ours=ours)
    assert not wrong.equal
    assert wrong.same < 2


@pytest.mark.parametrize("mode", ["affine8", "mxfp8", "affine6", "affine4", "mxfp4"])
def test_a_quantised_export_in_mlx_lm(models: Models, tmp_path: Path, mode: str) -> None:
    """It is its run, and not its base; 1.0 of the spread would take either for the same at any number of bits."""
    random_adapter(models("wide"), tmp_path / "run")
    path = export(tmp_path / "run", "mlx", quantize=mode, force=True).path
    side = identify(str(path))
    assert (side.kind, side.precision) == ("mlx", mode)
    found = verify(identify(str(tmp_path / "run")), side, PROMPTS)
    assert found.programs == ("mlx-gemma", "mlx-lm")
    assert found.gap.mean > 1e-2
    assert found.equal
    wrong = verify(identify(str(models("wide"))), side, PROMPTS)
    assert wrong.gap.mean < wrong.gap.spread
    assert not wrong.equal


def test_merged_in_bfloat16(models: Models, tmp_path: Path) -> None:
    """A small adapter's effect is not taken for rounding; 0.1 of the spread would be."""
    random_adapter(models("e2b-bf16"), tmp_path / "run", size=SMALL)
    side = identify(str(export(tmp_path / "run", "hf").path))
    assert verify(identify(str(tmp_path / "run")), side, PROMPTS).equal
    wrong = verify(identify(str(models("e2b-bf16"))), side, PROMPTS)
    assert wrong.gap.mean < 0.1 * wrong.gap.spread
    assert not wrong.equal


@pytest.mark.parametrize("ours", [False, True])
def test_nothing_is_rounded_between_adapters_of_one_checkpoint(models: Models, tmp_path: Path, ours: bool) -> None:
    """Of bfloat16, which both sides compute with in float32."""
    random_adapter(models("e2b-bf16"), tmp_path / "run", size=SMALL)
    path = export(tmp_path / "run", "peft").path
    sides = identify(str(tmp_path / "run")), identify(str(path))
    assert [side.precision for side in sides] == ["BF16", "BF16"]
    assert verify(*sides, PROMPTS, ours=ours).equal
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1.4 * config["lora_alpha"]}))
    wrong = verify(*sides, PROMPTS, ours=ours)
    assert wrong.gap.mean < 0.04 * wrong.gap.spread
    assert not wrong.equal


def test_which_precisions_lie_between(models: Models, tmp_path: Path) -> None:
    base, run = models("wide-bf16"), tmp_path / "run"
    random_adapter(base, run)
    other, small, model = (str(tmp_path / name) for name in ("f16.gguf", "f32.gguf", "model.gguf"))
    export(run, "gguf-lora", Path(other), dtype="F16")
    export(run, "gguf-lora", Path(small))
    export(run, "gguf", Path(model), dtype="Q8_0")
    a_run, half, on_gguf = identify(str(run)), identify(other, str(base)), identify(small, model)
    assert [side.precision for side in (a_run, half, on_gguf)] == ["BF16", "BF16", "Q8_0"]
    assert half.adapter_precision == "F16"
    assert rounded(a_run, identify(small, str(base))) == ["F32", "F32"]
    assert rounded(a_run, half) == ["F32", "F16"]
    assert rounded(a_run, on_gguf) == ["BF16", "Q8_0"]
    assert rounded(identify(str(base)), identify(str(base))) == ["F32", "F32"]
    random_adapter(base, tmp_path / "quantised", quantize="affine4")
    trained = identify(str(tmp_path / "quantised"))
    assert rounded(trained, a_run) == ["affine4", "BF16"]


@pytest.mark.parametrize(
    ("precision", "like"),
    [
        *(("Q4_K", "4 bits"), ("IQ2_XXS", "4 bits"), ("Q5_0", "4 bits"), ("nf4", "4 bits"), ("quantised", "4 bits")),
        *(("Q6_K", "6 bits"), ("Q8_0", "8 bits"), ("affine8", "8 bits"), ("BF16", "BF16"), ("F64", "F32")),
    ],
)
def test_a_bound_of_every_precision(precision: str, like: str) -> None:
    assert bound(precision) == BOUNDS[like]


def test_kl_counts_too() -> None:
    gap = compare.Difference(largest=1.0, mean=0.01, kl=0.01, agreement=1.0, spread=1.0)
    assert Verified(("", ""), gap, Bound(0.02, 0.02), 1, 1).equal
    assert not Verified(("", ""), gap, Bound(0.02, 0.005), 1, 1).equal
    assert not Verified(("", ""), gap, Bound(0.005, 0.02), 1, 1).equal


def test_where_transformers_has_no_room(run: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(run, "peft").path
    monkeypatch.setattr(counterpart, "fits_wide", lambda source: False)
    monkeypatch.setattr(counterpart, "wide_bytes", lambda source: 20_400_000_000)
    monkeypatch.delattr(programs, "transformers_model")
    large = "mlx-gemma (transformers would need 20.4 GB)"
    assert verify(identify(str(run)), identify(str(path)), PROMPTS).programs == ("mlx-gemma", large)
    assert verify(identify(str(models("e2b"))), identify(str(run)), PROMPTS).programs == (large, "mlx-gemma")
    assert verify(identify(str(run)), identify(str(path)), PROMPTS, ours=True).programs[1] == "mlx-gemma"


def test_adapters_of_the_hub(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(run, "peft").path
    held = {"someone/peft": path, "someone/mlx-lm": run}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(held[name]))
    sides = identify("someone/peft"), identify("someone/mlx-lm")
    assert [side.kind for side in sides] == ["peft", "run"]
    found = verify(*sides, PROMPTS)
    assert found.programs == ("transformers + PEFT", "mlx-gemma")
    assert found.equal


def test_the_template_of_either(run: Path, models: Models, writable: Callable[[str], Path]) -> None:
    folder = writable("e2b")
    (folder / "tokenizer.json").unlink()
    bare, whole = identify(str(folder)), identify(str(models("e2b")))
    assert verify(bare, whole, PROMPTS).equal
    assert verify(whole, bare, PROMPTS).equal
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        verify(bare, bare, PROMPTS)


def test_prompts_are_asked_as_they_stand(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, asked = "Complete:\n\n    def f(x):\n        return X\n", []

    def ask(first: object, second: object, prompts: list[str], **_: object) -> Verified:
        asked.extend(prompts)
        return Verified(("", ""), compare.Difference(0, 0, 0, 1, 1), Bound(0, 0), 1, 1)

    monkeypatch.setattr("mlx_gemma.interop.verify.verify", ask)
    (tmp_path / "prompts.jsonl").write_text((json.dumps({"id": "a", "prompt": prompt}) + "\n") * 3)
    base = str(models("e2b"))
    done = CliRunner().invoke(cli, ["verify", base, base, "--prompts", "prompts.jsonl", "--limit", "2"])
    assert done.exit_code == 0, done.output
    assert asked == [prompt, prompt]


@pytest.mark.parametrize("name", ["e2b", "e2b-sharded", "e4b"])
@pytest.mark.parametrize("dtype", [None, "F32", "BF16"])
def test_text_only_and_dtypes(models: Models, tmp_path: Path, name: str, dtype: str | None) -> None:
    """Gemma4ForCausalLM out of a multimodal checkpoint; transformers loads it clean, in either precision."""
    tokens = random_tokens(60)
    adapted = our_logits(random_adapter(models(name), tmp_path / "run"), tokens)
    out = export(tmp_path / "run", "hf", tmp_path / "out", dtype=dtype, text_only=True).path
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["Gemma4ForCausalLM"]
    assert config["model_type"] == "gemma4_text"
    precision = dtype or ("BF16" if name == "e2b-sharded" else "F32")
    assert config["dtype"] == {"F32": "float32", "BF16": "bfloat16"}[precision]
    assert identify(str(out)).precision == precision
    gap = np.abs(reference_logits(out, tokens) - adapted).mean() / adapted.std()
    print(f"{name} {dtype}: mean {gap:.1e}")
    assert gap < (1e-5 if precision == "F32" else 0.05)
    whole = export(tmp_path / "run", "hf", tmp_path / "whole", dtype=dtype).path
    assert np.abs(reference_logits(whole, tokens) - our_logits(load(str(out)), tokens)).mean() < 1e-5 * adapted.std()
    if (out / "model.safetensors.index.json").exists():
        index = json.loads((out / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == {p.name for p in out.glob("*.safetensors")}
        assert not any("tower" in tensor for tensor in index["weight_map"])


def test_difference_counts_kl_and_argmax() -> None:
    reference = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], np.float32))
    found = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.2, 0.7]], np.float32)) + 3
    gap = compare.difference(found, reference)
    assert gap.kl == pytest.approx((0.5 * np.log(2) - 0.25 * np.log(2)) / 2, rel=1e-5)
    assert gap.agreement == 0.5
    with pytest.raises(ModelError, match="2 logits a token against 3"):
        compare.difference(found[:, :2], reference)


def test_greedy_with_a_cache_is_greedy_without(models: Models) -> None:
    text, tokens = load(str(models("e2b"))).text, random_tokens(20)
    said = list(tokens)
    for _ in range(6):
        said.append(int(compare.logits(text, said)[-1].argmax()))
    assert compare.greedy(text, tokens, 6) == said[20:]


def test_transformers_warnings_are_errors(models: Models, tmp_path: Path, writable: Callable[[str], Path]) -> None:
    """Trap: it loads the multimodal folder into the text-only class with random weights, and only reports it."""
    folder = writable("e2b")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config["text_config"] | {"architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text"})
    )
    with pytest.raises(ModelError, match=r"transformers reports \d+ missing keys, for example"):
        programs.transformers_model(folder)


def test_the_command(run: Path, models: Models, tmp_path: Path) -> None:
    path = export(run, "hf").path
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": p, "prompt": p}) + "\n" for p in PROMPTS))
    done = CliRunner().invoke(cli, ["verify", str(run), str(path), "--prompts", str(prompts)])
    assert done.exit_code == 0, done.output
    assert "the same function: mean logit difference" in done.output
    assert "the same greedy text on 2 of 2 prompts" in done.output
    assert all(len(line) <= 100 for line in done.output.splitlines() if str(tmp_path) not in line)
    done = CliRunner().invoke(cli, ["verify", str(models("e2b")), str(path), "--ours"], standalone_mode=False)
    assert done.return_value == 1  # which main() exits with
    assert "NOT the same function" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "nano"], "no such folder"),
        (["run/model.gguf", "run/model.gguf"], "neither brings a chat template.*--base"),
        (["run", "run/adapter.gguf"], r"adapter.gguf: an adapter alone; give its base \(--base\)"),
        (["run", "recipe.txt"], "recipe.txt"),
    ],
)
def test_bad_input_is_told(run: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    export(run, "gguf")
    export(run, "gguf-lora")
    (tmp_path / "recipe.txt").write_text("no model")
    with pytest.raises(UserError, match=message) as told:
        CliRunner().invoke(cli, ["verify", *arguments], catch_exceptions=False, standalone_mode=False)
    assert told.value.fix
