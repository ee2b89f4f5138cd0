"""Exports are judged by llama.cpp: it computes base + adapter, from one file or from two.

Skipped without llama-cpp-python; `make test-llama` builds it. The models' logits have a standard deviation of 1 (e2b,
e4b) and 5 (nano), an adapter moves them by 0.6 to 0.8 in the mean. Of what is left at F32, ggml's float16 table of
GELU explains about half (reference: gemma4.md section 5).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gemma4 import add_dead_kv, random_adapter, random_tokens

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import load
from mlx_gemma.interop import compare, programs
from mlx_gemma.interop.export import export
from mlx_gemma.interop.gguf import read_model

llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: make test-llama")

Models = Callable[[str], Path]
TOKENS = random_tokens(60)  # the sliding windows are 16 and 128
LIMITS = {  # mean logit difference, mean KL in nats
    "F32": (5e-3, 1e-4),  # measured 6e-4, 1.1e-3, 6e-4 and 1.4e-6
    "F16": (1e-2, 1e-4),  # measured 4.0e-3 and 1.6e-5
    "BF16": (5e-2, 2e-3),  # measured 2.2e-2 and 4.7e-4
    "Q8_0": (0.25, 3e-2),  # measured 0.12 and 1.3e-2
}
PROMPTS = [f"Write a function that {what}." for what in (
    "adds two numbers", "reverses a string", "counts the vowels", "sorts a list", "finds the largest number",
    "says hello", "reads a file", "squares a number", "joins words", "checks for a palindrome",
)] + [f"Print {what}" for what in (
    "the numbers from 1 to 10.", "x", "the sum of a list", "every key of a dictionary.", "a triangle of stars",
    "the length of `name`.", "each line of a file", "today's date", "the letters of 'abc'", "2 ** 8",
)]  # fmt: skip


def gap(found: Any, wanted: Any, tokens: list[int] = TOKENS) -> compare.Difference:
    return compare.difference(found.logits(tokens), wanted.logits(tokens))


@pytest.mark.parametrize("dtype", list(LIMITS))
@pytest.mark.parametrize("name", ["e2b", "e4b", "nano"])
def test_base_plus_adapter(models: Models, tmp_path: Path, name: str, dtype: str) -> None:
    wanted = programs.ours(random_adapter(models(name), tmp_path / "run").text)
    path = export(tmp_path / "run", "gguf", tmp_path / "model.gguf", dtype=dtype).path
    found = programs.llama(path, None, 128)
    off = gap(found, wanted)
    print(f"\n{name} {dtype}: {off}")
    mean, kl = LIMITS[dtype]
    assert off.mean < mean
    assert off.kl < kl
    assert off.mean < gap(programs.ours(load(str(models(name))).text), wanted).mean / 4
    assert gap(found, programs.ours(read_model(path))).mean < mean, "and what we read is what it runs"


@pytest.mark.parametrize(("name", "kind"), [("e2b", "dora"), ("e4b", "dora"), ("e2b", "full"), ("e2b-text", "lora")])
def test_other_kinds(models: Models, tmp_path: Path, name: str, kind: str) -> None:
    wanted = programs.ours(random_adapter(models(name), tmp_path / "run", kind=kind).text)
    path = export(tmp_path / "run", "gguf", tmp_path / "model.gguf").path
    off = gap(programs.llama(path, None, 128), wanted)
    assert off.mean < 5e-3
    assert off.kl < 1e-4


def test_dead_kv(writable: Callable[[str], Path], tmp_path: Path) -> None:
    base = writable("e2b")
    add_dead_kv(base)
    wanted = programs.ours(random_adapter(base, tmp_path / "run").text)
    path = export(tmp_path / "run", "gguf", tmp_path / "model.gguf").path
    assert gap(programs.llama(path, None, 128), wanted).mean < 5e-3


def test_gemma_s_vocabulary(writable: Callable[[str], Path], tmp_path: Path) -> None:
    """262,144 tokens: nano's tokenizer, and names made up for the rest, as llama.cpp wants one for every row."""
    base = writable("vocabulary")
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    held = tokenizer["model"]["vocab"]
    held |= {f"<row{i}>": i for i in range(max(held.values()) + 1, 262_144)}
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    wanted = programs.ours(random_adapter(base, tmp_path / "run").text)
    path = export(tmp_path / "run", "gguf", tmp_path / "model.gguf").path
    tokens = np.random.default_rng(0).integers(0, 262_144, 24).tolist()
    off = gap(programs.llama(path, None, 64), wanted, tokens)
    print(off)
    assert off.mean < 5e-3
    assert off.kl < 1e-4


@pytest.mark.parametrize(("name", "scale"), [("e2b", 2.0), ("e4b", 2.0), ("nano", 2.0), ("e2b", 11.3137)])
def test_adapter_on_the_base(models: Models, tmp_path: Path, name: str, scale: float) -> None:
    """Two files compute what one merged file computes; on every target, the per-layer projections included."""
    random_adapter(models(name), tmp_path / "run", targets=tuple(lora.PLACES), size=0.05 * 2 / scale)
    base = random_adapter(models(name), tmp_path / "none", size=0.0)
    config = json.loads((tmp_path / "run" / lora.CONFIG).read_text())
    config["lora_parameters"]["scale"] = scale
    (tmp_path / "run" / lora.CONFIG).write_text(json.dumps(config))
    merged = export(tmp_path / "run", "gguf", tmp_path / "merged.gguf", dtype="F32").path
    plain = export(tmp_path / "none", "gguf", tmp_path / "base.gguf", dtype="F32").path
    adapter = export(tmp_path / "run", "gguf-lora", tmp_path / "adapter.gguf").path
    wanted = programs.ours(load(str(tmp_path / "run")).text)
    found = programs.llama(plain, adapter, 128)
    off, effect = gap(found, wanted), gap(programs.ours(base.text), wanted)
    print(f"\n{name} adapter file: {off}; of an effect of {effect.mean:.2f}")
    assert off.mean < 5e-3 < effect.mean / 20
    assert off.kl < 1e-4
    assert gap(found, programs.llama(merged, None, 128)).mean < 2e-3, "measured 1e-3"
    assert gap(programs.llama(plain, None, 128), programs.ours(base.text)).mean < 5e-3


def test_same_greedy_text_on_nano(tmp_path: Path) -> None:
    """20 prompts, to the stop token or 24 tokens: merged into one file, and the adapter beside the base."""
    gemma = random_adapter("nano", tmp_path / "run", size=0.01)
    random_adapter("nano", tmp_path / "none", size=0.0)
    merged = export(tmp_path / "run", "gguf", tmp_path / "merged.gguf", dtype="F32").path
    plain = export(tmp_path / "none", "gguf", tmp_path / "base.gguf", dtype="F32").path
    adapter = export(tmp_path / "run", "gguf-lora", tmp_path / "adapter.gguf").path
    one, two, ours = programs.llama(merged, None, 256), programs.llama(plain, adapter, 256), programs.ours(gemma.text)

    def answer(program: Any, prompt: str) -> str:
        ids = gemma.template.prompt([{"role": "user", "content": prompt}])
        tokens = program.greedy(ids, 24)
        end = next((i for i, token in enumerate(tokens) if token in gemma.stop_tokens), len(tokens))
        return gemma.template.decode(tokens[: end + 1])

    for prompt in PROMPTS:
        assert answer(one, prompt) == answer(ours, prompt) == answer(two, prompt), prompt


def test_same_tokens(tmp_path: Path) -> None:
    """llama.cpp cuts rendered conversations as we do; it would write a second <bos> if it were let."""
    template = random_adapter("nano", tmp_path / "run", size=0.01).template
    path = export(tmp_path / "run", "gguf", tmp_path / "model.gguf").path
    program = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    texts = [
        *PROMPTS,
        "def f(x):\n\tif x:\n        return  'a'\n\n\n# end",
        "naïve 日本語 🙂 — “q” \r\n\x07",
        "<br> 1,000.5%",
    ]
    for text in texts:
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": f"It is\n\n{text}"}]
        rendered = template.render(messages, generate=False)
        found = program.tokenize(rendered.encode(), add_bos=False, special=True)
        assert found == template.encode(rendered) == template.example(messages).tokens, text
        assert program.tokenize(rendered.encode(), add_bos=True, special=True)[:2] == [2, 2]
    assert program.tokenizer_.detokenize([16], special=True) == b"<turn|>"


def test_a_file_that_llama_cpp_quantised(models: Models, tmp_path: Path) -> None:
    """We read its Q4_K and Q6_K as it computes with them."""
    random_adapter(models("wide"), tmp_path / "run")
    path = export(tmp_path / "run", "gguf", tmp_path / "model.gguf").path
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    assert llama_cpp.llama_model_quantize(str(path).encode(), str(tmp_path / "q4.gguf").encode(), params) == 0
    found, whole = programs.llama(tmp_path / "q4.gguf", None, 128), programs.ours(read_model(path))
    off = gap(found, programs.ours(read_model(tmp_path / "q4.gguf")))
    print(f"\nQ4_K_M: {off}; against F32 {gap(found, whole)}")
    assert off.mean < gap(found, whole).mean / 3


def test_what_it_refuses_is_one_line(models: Models, tmp_path: Path) -> None:
    random_adapter(models("e2b"), tmp_path / "run")
    path = export(tmp_path / "run", "gguf", tmp_path / "model.gguf").path
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"llama\.cpp does not load it") as caught:
        programs.llama(path, None, 128)
    assert "\n" not in str(caught.value)
