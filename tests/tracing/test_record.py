"""Traces: the numbers against transformers, given answers, the prompt, sampling, and a head in 16 bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from logits import reference_logits
from tiny_gemma4 import random_adapter

from mlx_gemma import platform
from mlx_gemma.decode.generate import decode, generate
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.decode.scores import exact, forced, states
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.layers import head
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.tracing.record import trace

PROMPT = "Write a function total(numbers) that returns the sum of a list."


@pytest.mark.parametrize("base", ["nano", "e2b", "e4b"])
def test_a_given_answer_agrees_with_transformers(models: Callable[[str], Path], base: str) -> None:
    """float32 log-softmax, 1e-4 nats, in chunks of 64 and beyond the sliding window (128; 16 of the small models)."""
    gemma = load(str(models(base)))
    low = 30 if base == "nano" else 10
    tokens = np.random.default_rng(1).integers(low, 200, 300).tolist()
    expected = torch.log_softmax(torch.tensor(reference_logits(models(base), tokens)), -1).numpy()
    for first in (1, 130, 299):
        scores = forced(gemma.text, tokens, first, top=5)
        assert len(scores) == 300 - first
        for i, s in enumerate(scores, first):
            assert s.logprob == pytest.approx(float(expected[i - 1, tokens[i]]), abs=1e-4)
            best = np.sort(expected[i - 1])[::-1][:5]
            assert [v for _, v in s.top] == pytest.approx(best.tolist(), abs=1e-4)
            above, surely = ((expected[i - 1] > expected[i - 1, tokens[i]] + d).sum() for d in (-1e-4, 1e-4))
            assert surely <= s.rank <= above  # neighbours may be closer than rounding


def test_a_given_answer_has_the_figures_of_the_generated_one(nano: Gemma) -> None:
    own = trace(nano, PROMPT)
    assert own.finish == "stop"
    given = trace(nano, PROMPT, force=own.text.removesuffix("<turn|>"))
    assert given.finish == "given"
    assert [p.token for p in given.positions] == [p.token for p in own.positions]
    assert [p.logprob for p in given.positions] == pytest.approx([p.logprob for p in own.positions], abs=1e-4)
    assert [p.entropy for p in given.positions] == pytest.approx([p.entropy for p in own.positions], abs=1e-3)


def test_the_prompt_s_own_tokens(nano: Gemma) -> None:
    found = trace(nano, PROMPT, max_tokens=3, prompt_too=True)
    assert [p.token for p in found.prompt] == found.prompt_tokens[1:]
    assert [p.index for p in found.prompt] == list(range(1 - len(found.prompt_tokens), 0))
    logits = nano.model(mx.array([found.prompt_tokens]))[0].astype(mx.float32)
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    expected = [logprobs[i, t].item() for i, t in enumerate(found.prompt_tokens[1:])]
    assert [p.logprob for p in found.prompt] == pytest.approx(expected, abs=1e-4)


def test_what_sampling_makes_of_the_probabilities(nano: Gemma) -> None:
    assert all(p.drawn is None for p in trace(nano, PROMPT, max_tokens=5).positions)
    sampling = Sampling(0.7, top_k=3, seed=1)
    found = trace(nano, PROMPT, sampling=sampling, max_tokens=30, top=5)
    changed = 0
    for p in found.positions:
        drawn = [c.drawn for c in p.candidates]
        assert all(d is not None for d in drawn)
        powers = [c.probability ** (1 / 0.7) for c in p.candidates[:3]]
        assert drawn[:3] == pytest.approx([x / sum(powers) for x in powers], abs=1e-4)
        assert drawn[3:5] == [0, 0]
        changed += abs(drawn[0] - p.candidates[0].probability) > 0.01
    assert changed


def test_tracing_changes_no_token(nano: Gemma) -> None:
    for sampling in (Sampling(), Sampling(1.3, seed=4), Sampling(0.9, top_p=0.8, top_k=7, seed=2)):
        traced = trace(nano, PROMPT, sampling=sampling, max_tokens=40).positions
        plain = generate(nano, PROMPT, sampling=sampling, max_tokens=40)
        assert [p.token for p in traced if p.token not in nano.stop_tokens] == plain.tokens


def test_a_head_in_16_bits_is_computed_again_in_float32(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same bfloat16 hidden states: the listed log-probabilities are within 1e-3 nats; unmended they are off by
    more than ten times that somewhere."""
    monkeypatch.setattr(platform, "compute_dtype", lambda: None)
    text = load(str(models("nano"))).text
    assert text.model.embed_tokens.weight.dtype == mx.bfloat16
    tokens = np.random.default_rng(2).integers(30, 3000, 40).tolist()
    hidden = mx.concatenate(list(states(text, tokens, 0)))
    raw = head(text, hidden)
    ids = mx.argpartition(-raw, kth=9, axis=-1)[:, :10]
    wide = np.array(hidden.astype(mx.float32)).astype(np.float64)
    table = np.array(text.model.embed_tokens.weight.astype(mx.float32)).astype(np.float64)
    cap = text.final_logit_softcapping
    logits = np.tanh(wide @ table.T / cap) * cap
    expected = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = np.take_along_axis(expected, np.array(ids).astype(np.int64), axis=-1)

    def off(x: mx.array) -> float:
        found = mx.take_along_axis(x - mx.logsumexp(x, axis=-1, keepdims=True), ids, axis=-1)
        return float(np.abs(np.array(found) - expected).max())

    assert off(exact(text, hidden, raw, ids)) < 1e-3
    assert off(raw) > 1e-2


def test_a_cache_goes_on(nano: Gemma) -> None:
    tokens = np.random.default_rng(3).integers(30, 3000, 200).tolist()
    cache = nano.text.make_cache()
    list(states(nano.text, tokens[:150], 150, cache))
    whole = [s.token for s in decode(nano, tokens, Sampling(), 8)]
    assert [s.token for s in decode(nano, tokens[150:], Sampling(), 8, cache=cache)] == whole


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"force": ""}, "the given answer is empty"),
        ({"force": "a<turn|>b"}, "control token"),
        ({"force": "word " * 3000}, "the model's context"),
        ({"force": "a\udcff"}, "no UTF-8 text"),
        ({"system": "a\udcff"}, "the system message: bytes that are no UTF-8"),
        ({"top": 0}, "out of range"),
        ({"top": 101}, "out of range"),
    ],
)
def test_bad_input(nano: Gemma, options: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        trace(nano, PROMPT, **options)  # type: ignore[arg-type]
    assert caught.value.fix


def test_k_larger_than_the_vocabulary(nano: Gemma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nano.text.args, "vocab_size", 7)
    with pytest.raises(UserError, match="give 1 to 7"):
        trace(nano, PROMPT, top=8)


def test_probabilities_of_a_position_are_consistent(nano: Gemma) -> None:
    for p in trace(nano, PROMPT, top=100).positions:
        assert p.margin == pytest.approx(p.candidates[0].probability - p.candidates[1].probability)
        assert math.fsum(c.probability for c in p.candidates) <= 1 + 1e-5
        assert p.entropy >= -1e-6


def test_a_model_that_diverged(models: Callable[[str], Path], tmp_path: Path) -> None:
    random_adapter(models("nano"), tmp_path / "run")
    weights = dict(mx.load(str(tmp_path / "run" / lora.WEIGHTS)))
    mx.save_safetensors(str(tmp_path / "run" / lora.WEIGHTS), {k: v * float("nan") for k, v in weights.items()})
    with pytest.raises(ModelError, match="the probabilities are not finite"):
        trace(load(str(tmp_path / "run")), PROMPT, max_tokens=3)
