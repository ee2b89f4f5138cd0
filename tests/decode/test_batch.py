"""Batches: every row's answer and scores are those of the row alone, whatever else is in the batch."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_gemma.decode.batch import generate_batch
from mlx_gemma.decode.generate import Generation, as_messages, generate, prompt_tokens
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.decode.scores import Scores, forced
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma, load

PROMPTS = (
    "Write a function add(a, b) that returns their sum.",
    "hi",
    "print the numbers from 1 to 5, one per line, with a while loop; " * 7,  # beyond nano's sliding window of 128
    "Write a function last(values) that returns the last item of a list, or None where there is none.",
    "Write a class Stack with push and pop.",
)
GREEDY, SAMPLED = Sampling(), Sampling(0.7, top_p=0.95, seed=5)


@pytest.fixture(scope="module")
def nano() -> Gemma:
    return load("nano")


def together(gemma: Gemma, samplings: list[Sampling], most: int = 48) -> dict[int, tuple[Generation, list[Scores]]]:
    prompts = [prompt_tokens(gemma, as_messages(p)) for p in PROMPTS]
    return {row: (answer, scores) for row, answer, scores in generate_batch(gemma, prompts, samplings, most)}


def test_answers_are_those_of_every_prompt_alone(nano: Gemma) -> None:
    samplings = [GREEDY, SAMPLED, GREEDY, Sampling(1.0, seed=9), SAMPLED]
    found = together(nano, samplings)
    assert sorted(found) == list(range(len(PROMPTS)))
    finishes = set()
    for row, sampling in enumerate(samplings):
        alone = generate(nano, PROMPTS[row], sampling=sampling, max_tokens=48)
        answer = found[row][0]
        assert (answer.text, answer.tokens, answer.finish) == (alone.text, alone.tokens, alone.finish)
        assert answer.prompt_tokens == alone.prompt_tokens
        finishes.add(answer.finish)
    assert finishes == {"stop", "length"}


@pytest.mark.parametrize("name", ["nano", "e2b", "e4b"])
def test_scores_are_those_of_one_forward_pass(models: Any, name: str) -> None:
    """1e-4 nats, float32; the small models' window is 16, and their layers share keys and values."""
    gemma = load(str(models(name)))
    for row, (answer, scores) in together(gemma, [GREEDY] * len(PROMPTS), 40).items():
        prompt = prompt_tokens(gemma, as_messages(PROMPTS[row]))
        again = forced(gemma.text, [*prompt, *answer.tokens], len(prompt), 1)
        assert len(scores) == len(answer.tokens) + (answer.finish == "stop")
        for one, other in zip(scores, again, strict=False):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert one.entropy == pytest.approx(other.entropy, abs=1e-3)


def test_a_prompt_without_tokens_or_with_too_many_is_refused(nano: Gemma) -> None:
    for prompt in ([], [5] * nano.context):
        with pytest.raises(UserError, match=f"a prompt has {len(prompt)} tokens"):
            list(generate_batch(nano, [[5], prompt], [GREEDY] * 2, 4))
