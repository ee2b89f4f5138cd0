"""Two ways to compute one thing: every optimisation against the plain way, with the tolerance that it promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from logits import our_logits
from mlx.utils import tree_flatten
from tiny_gemma4 import random_adapter, random_tokens

from mlx_gemma.decode import generate as decoding
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.gemma4.layers import head
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.template import Example
from mlx_gemma.interop.export import export
from mlx_gemma.training.batches import collate
from mlx_gemma.training.loss import summed_loss

Models = Callable[[str], Path]
NAMES = ["nano", "e2b", "e4b-text"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(nn.log_softmax(mx.array(logits), axis=-1))


def decoded(gemma: Gemma, tokens: list[int], steps: int) -> list[decoding.Step]:
    source = decoding.decode(gemma, tokens, Sampling(), steps, top=3)
    return [next(source) for _ in range(steps)]


@pytest.mark.parametrize("name", NAMES)
def test_head_is_the_model_s(models: Models, name: str) -> None:
    gemma = load(str(models(name)))
    tokens = random_tokens(40)
    ours = np.asarray(head(gemma.text, gemma.text.model(mx.array([tokens]))))[0]
    assert np.abs(ours - our_logits(gemma, tokens)).max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_decoded_is_one_forward_pass(models: Models, name: str) -> None:
    """Log-probabilities from the cache, token by token, are those of the whole sequence; beyond the window too."""
    gemma, prompt = load(str(models(name))), random_tokens(20)
    steps = decoded(gemma, prompt, 24)
    whole = log_softmax(our_logits(gemma, prompt + [s.token for s in steps[:-1]]))[len(prompt) - 1 :]
    for step, row in zip(steps, whole, strict=True):
        assert step.token == row.argmax()
        assert step.scores.rank == 0
        assert abs(step.scores.logprob - row[step.token]) < 1e-3
        assert abs(step.scores.entropy + (np.exp(row) * row).sum()) < 1e-3
        assert [t for t, _ in step.scores.top] == np.argsort(-row)[:3].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_prefill_in_pieces(models: Models, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    gemma, prompt = load(str(models(name))), random_tokens(50)
    whole = decoded(gemma, prompt, 4)
    monkeypatch.setattr(decoding, "FORWARD", 7)
    pieces = decoded(gemma, prompt, 4)
    assert [s.token for s in pieces] == [s.token for s in whole]
    assert max(abs(a.scores.logprob - b.scores.logprob) for a, b in zip(pieces, whole, strict=True)) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_padded_batch_is_each_row_alone(models: Models, name: str) -> None:
    """Padding on the right, seen by nothing real."""
    gemma = load(str(models(name)))
    rows = [random_tokens(n) for n in (9, 40, 23)]
    together = np.asarray(gemma.model(mx.array([r + [0] * (40 - len(r)) for r in rows])))
    for row, found in zip(rows, together, strict=True):
        assert np.abs(found[: len(row)] - our_logits(gemma, row)).max() < 1e-3


@pytest.mark.parametrize("name", ["e2b", "e4b"])
def test_text_only_is_the_multimodal_decoder(models: Models, tmp_path: Path, name: str) -> None:
    """Our multimodal class and its text decoder alone: the same function, exactly."""
    gemma, tokens = load(str(models(name))), random_tokens(40)
    assert (np.asarray(gemma.text(mx.array([tokens]))[0]) == our_logits(gemma, tokens)).all()


@pytest.mark.parametrize("name", ["e2b", "e4b-text"])
def test_merged_is_adapted(models: Models, tmp_path: Path, name: str) -> None:
    """In a float32 checkpoint nothing is rounded, so merging changes only the order of sums."""
    gemma, tokens = random_adapter(models(name), tmp_path / "run"), random_tokens(60)
    done = export(tmp_path / "run", "hf", tmp_path / "out")
    assert np.abs(our_logits(load(str(done.path)), tokens) - our_logits(gemma, tokens)).max() < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_chunked_loss_is_the_plain_one(models: Models, tmp_path: Path, name: str) -> None:
    """Loss and gradients of the chunked head on gathered positions, against cross entropy over all logits."""
    gemma = random_adapter(models(name), tmp_path)
    gemma.model.unfreeze(keys=["lora_a", "lora_b"], strict=False)
    rng = np.random.default_rng(0)
    rows = [random_tokens(n) for n in (150, 60, 33)]
    examples = [Example(r, [False, *(rng.random(len(r) - 1) < 0.7).tolist()]) for r in rows]

    def plain(_: nn.Module) -> mx.array:
        total = mx.array(0.0)
        for example in examples:
            losses = nn.losses.cross_entropy(
                gemma.model(mx.array([example.tokens[:-1]]))[0], mx.array(example.tokens[1:])
            )
            total = total + (losses * mx.array(example.supervised[1:])).sum()
        return total

    batch = collate(examples, [[i] for i in range(len(examples))])
    ours, our_grads = nn.value_and_grad(gemma.model, lambda b: summed_loss(gemma.text, b))(batch)
    wanted, grads = nn.value_and_grad(gemma.model, plain)(gemma.model)
    assert batch.targets == sum(e.targets for e in examples)
    assert abs(ours.item() / wanted.item() - 1) < 1e-5
    flat = dict(tree_flatten(grads))
    assert len(flat) in (76, 82)
    for key, grad in tree_flatten(our_grads):
        assert mx.abs(grad - flat[key]).max().item() < 1e-3 * (1 + mx.abs(flat[key]).max().item()), key
