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
from mlx_gemma.interop import compare, programs
from mlx_gemma.interop.artefact import identify
from mlx_gemma.interop.export import export
from mlx_gemma.interop.verify import verify

Models = Callable[[str], Path]
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


def test_a_quantised_export_in_mlx_lm(models: Models, tmp_path: Path) -> None:
    random_adapter(models("wide"), tmp_path / "run")
    path = export(tmp_path / "run", "mlx", quantize="affine8").path
    side = identify(str(path))
    assert (side.kind, side.precision) == ("mlx", "quantised")
    found = verify(identify(str(tmp_path / "run")), side, PROMPTS)
    assert found.programs == ("mlx-gemma", "mlx-lm")
    assert 1e-3 < found.gap.mean < 0.1 * found.gap.spread
    assert found.equal


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
