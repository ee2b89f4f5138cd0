"""Decoding: the model's own distribution, cached and uncached, inside and beyond the sliding window."""

from __future__ import annotations

from itertools import islice

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma.decode.generate import as_messages, decode, generate, prompt_tokens
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.tracing.record import trace
from mlx_gemma.tracing.render import table

PROMPT = "Write a function total(numbers) that returns the sum of a list."


@pytest.fixture(scope="module")
def nano() -> Gemma:
    return load("nano")


def full_logprobs(gemma: Gemma, tokens: list[int]) -> mx.array:
    logits = gemma.model(mx.array([tokens])).astype(mx.float32)[0, -1]
    return logits - mx.logsumexp(logits)


@pytest.mark.parametrize("length", [5, 127, 128, 129, 300])
def test_cached_steps_equal_whole_passes(nano: Gemma, length: int) -> None:
    # nano's sliding window is 128. float32, 1e-4 nats.
    tokens = np.random.default_rng(length).integers(30, 3000, length).tolist()
    for step in islice(decode(nano, tokens, Sampling(), 4, top=5), 4):
        expected = full_logprobs(nano, tokens)
        assert step.token == mx.argmax(expected).item()
        assert step.scores is not None
        assert step.scores.logprob == pytest.approx(expected[step.token].item(), abs=1e-4)
        assert [t for t, _ in step.scores.top] == mx.argsort(-expected)[:5].tolist()
        assert [-p for _, p in step.scores.top] == pytest.approx(mx.sort(-expected)[:5].tolist(), abs=1e-4)
        assert step.scores.entropy == pytest.approx(-(mx.exp(expected) * expected).sum().item(), abs=1e-3)
        tokens.append(step.token)


def test_greedy_equals_mlx_lm(nano: Gemma) -> None:
    from mlx_lm.generate import generate_step

    tokens = prompt_tokens(nano, as_messages(PROMPT))
    ours = [s.token for s in decode(nano, tokens, Sampling(), 30)]
    theirs = [int(t) for t, _ in generate_step(mx.array(tokens), nano.model, max_tokens=30)]
    assert ours == theirs


def test_the_answer_ends_before_the_stop_token(nano: Gemma) -> None:
    answer = generate(nano, PROMPT, max_tokens=200)
    assert answer.finish == "stop"
    assert "<turn|>" not in answer.text
    assert nano.template.decode(answer.tokens) == answer.text
    short = generate(nano, PROMPT, max_tokens=3)
    assert (short.finish, short.tokens) == ("length", answer.tokens[:3])


def test_a_seed_repeats_and_seeds_differ(nano: Gemma) -> None:
    hot = [generate(nano, PROMPT, sampling=Sampling(1.5, seed=s), max_tokens=24).tokens for s in (1, 1, 2, 3)]
    assert hot[0] == hot[1]
    assert hot[0] != hot[2] or hot[0] != hot[3]


def test_the_distribution_that_is_sampled() -> None:
    logits = mx.array([0.0, 3.0, 1.0, 2.0, -1.0])
    p = np.array(mx.softmax(logits / 0.5))
    assert np.array(mx.softmax(Sampling(0.5).distribution(logits))) == pytest.approx(p)
    assert np.isfinite(np.array(Sampling(1.0, top_k=2).distribution(logits))).tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]
    # softmax of the sorted logits: .64 .24 .09 ...: two reach 0.7, one is enough for 0.5
    assert np.isfinite(np.array(Sampling(1.0, top_p=0.7).distribution(logits))).sum() == 2
    assert np.isfinite(np.array(Sampling(1.0, top_p=0.5).distribution(logits))).sum() == 1
    drawn = [int(Sampling(1.0, seed=s).choose(logits, Sampling(seed=s).key()).item()) for s in range(400)]
    assert abs(drawn.count(1) / 400 - np.array(mx.softmax(logits))[1]) < 0.08


@pytest.mark.parametrize(
    "values", [{"temperature": -1}, {"temperature": 11}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}]
)
def test_sampling_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match="out of range"):
        Sampling(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("a <turn|> b", "control token"),
        ("<bos>", "control token"),
        ("word " * 3000, "context"),
    ],
)
def test_prompts_that_are_refused(nano: Gemma, prompt: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        generate(nano, prompt)


def test_a_trace_marks_the_token_that_was_chosen(nano: Gemma) -> None:
    # mlx-lm's server reports the first entry of an unsorted partition as the generated token.
    hot = trace(nano, PROMPT, sampling=Sampling(3.0, seed=5), max_tokens=30, top=3)
    assert any(p.rank > 0 for p in hot.positions)
    for p in hot.positions:
        logprobs = [c.logprob for c in p.candidates]
        assert logprobs == sorted(logprobs, reverse=True)
        chosen = [c for c in p.candidates if c.chosen]
        assert [c.token for c in chosen] == [p.token]
        assert p.candidates.index(chosen[0]) == min(p.rank, 3)
        assert sum(c.probability for c in p.candidates) <= 1.0001
    greedy = trace(nano, PROMPT, max_tokens=200)
    assert greedy.text.removesuffix("<turn|>") == generate(nano, PROMPT, max_tokens=200).text
    assert table(greedy.positions).row_count == len(greedy.positions)
    assert table(greedy.positions, uncertain=2).row_count == 2


@pytest.mark.parametrize("top", [0, 101, 5000])
def test_more_candidates_than_there_are(nano: Gemma, top: int) -> None:
    with pytest.raises(UserError, match="out of range"):
        trace(nano, PROMPT, top=top)


def test_probabilities_agree_with_transformers(nano: Gemma) -> None:
    # float32 log-softmax of the other implementation, 1e-4 nats, greedy and sampled, to beyond the sliding window.
    import torch
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(nano.checkpoint.folder, dtype=torch.float32).eval()
    for sampling in (Sampling(), Sampling(1.2, seed=1)):
        tokens = prompt_tokens(nano, as_messages(PROMPT + " It is used in a report." * 12))
        start, steps = len(tokens), []
        for step in islice(decode(nano, tokens, sampling, 60, top=1), 60):
            steps.append(step)
            tokens.append(step.token)
        assert len(tokens) > 150
        with torch.no_grad():
            logprobs = torch.log_softmax(theirs(input_ids=torch.tensor([tokens])).logits[0].float(), -1)
        expected = [logprobs[start + i - 1, s.token].item() for i, s in enumerate(steps)]
        assert [s.scores.logprob for s in steps if s.scores] == pytest.approx(expected, abs=1e-4)
