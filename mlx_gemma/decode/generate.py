"""The decoding loop: prefill, then a token at a time, each with its float32 log-probability and its rivals'.

Only the chosen token and `top` values a step leave the device; the next step is under way while one is handed out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx

from mlx_gemma.decode.sample import Sampling
from mlx_gemma.decode.scores import FORWARD, Arrays, Scores, measure, read
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.layers import head
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.gemma4.template import Message
from mlx_gemma.platform import scalar


class Step(NamedTuple):
    """One generated token; its scores where they were asked for."""

    token: int
    scores: Scores | None


@dataclass(frozen=True)
class Generation:
    """A finished answer. `finish` is `stop` (a stop token came) or `length` (the budget ran out)."""

    text: str
    tokens: list[int]
    finish: str
    prompt_tokens: int
    prefill_seconds: float  # until the first token
    decode_seconds: float  # from the first token to the last


def as_messages(prompt: str, system: str | None = None) -> list[Message]:
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": prompt}]


def check_text(text: str, where: str) -> None:
    """Raises UserError: it came as bytes that are no UTF-8."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise UserError("bytes that are no UTF-8 text", where=where, fix="give it in UTF-8")


def prompt_tokens(gemma: Gemma, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation to continue.

    Raises:
        UserError: an empty prompt, a control token in it, or more tokens than the model's context.
    """
    if not messages or not messages[-1]["content"].strip():
        raise UserError("the prompt is empty", fix="give some text")
    for message in messages:
        check_text(message["content"], f"the {message['role']} message")
    tokens = gemma.template.prompt(messages)
    if len(tokens) >= gemma.context:
        raise UserError(
            f"the prompt has {len(tokens)} tokens, the model's context {gemma.context}", fix="shorten the prompt"
        )
    return tokens


def decode(
    gemma: Gemma,
    tokens: Sequence[int],
    sampling: Sampling,
    max_tokens: int,
    top: int | None = None,
    cache: Any = None,
) -> Iterator[Step]:
    """Continue `tokens`, a step at a time, without end: the caller stops at a stop token.

    Args:
        top: score each token, with so many of the most probable ones; None: no scores, and no time for them.
        cache: of the text decoder, holding what comes before `tokens`; it is written to.
    """
    text = gemma.text
    cache = text.make_cache() if cache is None else cache
    ids = mx.array(list(tokens), mx.int32)
    for i in range(0, len(tokens) - 1, FORWARD):
        text.model(ids[None, i : min(i + FORWARD, len(tokens) - 1)], cache=cache)
        mx.eval([c.state for c in cache])  # the upper, K/V-shared layers are never computed for these positions
    key = sampling.key()

    def step(token: mx.array, key: mx.array) -> tuple[mx.array, Arrays | None]:
        hidden = text.model(token.reshape(1, 1), cache=cache)[0]
        logits = head(text, hidden)
        chosen = sampling.choose(logits[0], key)
        scores = measure(text, hidden, logits, chosen.reshape(1), top, sampling) if top is not None else None
        mx.async_eval(chosen, scores)  # type: ignore[no-untyped-call]
        return chosen, scores

    key, now = mx.random.split(key)
    pending = step(ids[-1], now)
    for i in range(max_tokens):
        chosen, scores = pending
        if i + 1 < max_tokens:
            key, now = mx.random.split(key)
            pending = step(chosen, now)
        token = int(scalar(chosen))
        yield Step(token, read(scores, [token])[0] if scores is not None else None)


def generate(
    gemma: Gemma,
    prompt: str | Sequence[Message],
    *,
    system: str | None = None,
    sampling: Sampling | None = None,
    max_tokens: int = 256,
) -> Generation:
    """Answer a prompt.

    Args:
        prompt: a user's text, or a conversation.
        system: a system turn before it, where `prompt` is text.
        sampling: greedy if absent.

    Raises:
        UserError: see `prompt_tokens`.
    """
    messages = as_messages(prompt, system) if isinstance(prompt, str) else prompt
    tokens = prompt_tokens(gemma, messages)
    budget = min(max_tokens, gemma.context - len(tokens))
    out: list[int] = []
    finish: str = "length"
    started = time.perf_counter()
    first: Any = None
    for step in decode(gemma, tokens, sampling or Sampling(), budget):
        first = first or time.perf_counter()
        if step.token in gemma.stop_tokens:
            finish = "stop"
            break
        out.append(step.token)
    ended = time.perf_counter()
    first = first or ended
    return Generation(gemma.template.decode(out), out, finish, len(tokens), first - started, ended - first)
