"""Do two programs compute the same function? Logits over the same tokens, and greedy continuations, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_gemma.data.formats import read_rows
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4.layers import head
from mlx_gemma.gemma4.template import ChatTemplate, Example, Message
from mlx_gemma.platform import scalar
from mlx_gemma.recipe import read_recipe
from mlx_gemma.run import RECIPE

Logits = np.ndarray[Any, np.dtype[np.float32]]  # [tokens, vocabulary]
CONVERSATIONS = (
    ("Write a function that adds two numbers.", "def add(a, b):\n    return a + b"),
    ("Print the numbers from 1 to 10, one on each line.", "for i in range(1, 11):\n    print(i)"),
    ("What does `len` return for a dictionary?", "The number of its keys."),
)
ROWS, LONGEST = 4, 64  # of a run's own validation set: 256 tokens are 270 MB of logits at a vocabulary of 262,144


@dataclass(frozen=True)
class Difference:
    """Of two models' logits, over every position and token."""

    largest: float
    mean: float
    kl: float  # mean over positions of KL(reference || found), in nats
    agreement: float  # share of positions with the same most probable token
    spread: float  # standard deviation of the reference's logits

    def __str__(self) -> str:
        return (
            f"logit difference max {self.largest:.1e}, mean {self.mean:.1e}, KL {self.kl:.1e}, "
            f"same argmax {self.agreement:.3f}"
        )


def difference(found: Logits, reference: Logits) -> Difference:
    """Compare logits [tokens, vocabulary] over the same tokens.

    Raises:
        ModelError: either holds NaN or infinity, or they are of different vocabularies.
    """
    if found.shape != reference.shape:
        what = f"{found.shape[1]} logits a token against {reference.shape[1]}"
        raise ModelError(what, fix="give two artefacts of the same model")
    if not (np.isfinite(found).all() and np.isfinite(reference).all()):
        raise ModelError("the logits are not finite", fix="check the adapter: its training may have diverged")
    gap = np.abs(found - reference)
    same = (found.argmax(-1) == reference.argmax(-1)).mean()
    kl = np.mean([_kl(p, q) for p, q in zip(reference, found, strict=True)])
    return Difference(float(gap.max()), float(gap.mean()), float(kl), float(same), float(reference.std()))


def survived(found: Logits, found_base: Logits, wanted: Logits, base: Logits) -> float:
    """How much of an adapter's effect on the logits is left where base and adapter were rounded together.

    1 is all of it (or there was none to lose), 0 nothing: the coefficient of the effect, wanted - base, in what was
    found over a base that was rounded in the same way (least squares, over every position and token).
    """
    effect = wanted - base
    size = float(np.vdot(effect, effect))
    return float(np.vdot(found - found_base, effect)) / size if size else 1.0


def _kl(p: Logits, q: Logits) -> float:
    wide_p, wide_q = p.astype(np.float64), q.astype(np.float64)
    log_p, log_q = (x - x.max() - np.log(np.exp(x - x.max()).sum()) for x in (wide_p, wide_q))
    return float((np.exp(log_p) * (log_p - log_q)).sum())


def conversations(template: ChatTemplate) -> list[list[int]]:
    """Token ids of CONVERSATIONS in a model's own template; about 40 tokens each."""
    turns: list[list[Message]] = [
        [{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in CONVERSATIONS
    ]
    return [template.example(messages).tokens for messages in turns]


def validation_rows(run: Path, template: ChatTemplate) -> list[list[int]]:
    """Token ids of a run's first validation rows, as it was trained on them; none where they are not to be had."""
    try:
        valid = read_recipe(run / RECIPE).recipe.data.valid
        rows = list(islice(read_rows(valid, "valid"), ROWS)) if valid else []
        return [_window(template.example(row.messages)) for row in rows]
    except UserError:  # an imported adapter, or data that was moved
        return []


def _window(example: Example) -> list[int]:
    """Where the prompt ends and the answer begins, however long the prompt."""
    first = max(0, example.supervised.index(True) - LONGEST // 2)
    return example.tokens[first : first + LONGEST]


def logits(text: Any, tokens: Sequence[int]) -> Logits:
    """Soft-capped logits [tokens, vocabulary] of mlx-lm's text decoder, float32; 1 MB a token at Gemma's vocabulary."""
    out = head(text, text.model(mx.array(list(tokens), mx.int32)[None]))[0]
    mx.eval(out)
    return np.asarray(out)


def all_logits(text: Any, sequences: Sequence[Sequence[int]]) -> Logits:
    """`logits` of several sequences, [tokens of all of them, vocabulary]."""
    return np.concatenate([logits(text, tokens) for tokens in sequences])


def greedy(text: Any, tokens: Sequence[int], count: int) -> list[int]:
    """The `count` most probable next tokens, one after another, with a cache; a stop token does not end it."""
    cache, out = text.make_cache(), []
    new = mx.array(list(tokens), mx.int32)[None]
    for _ in range(count):
        best = head(text, text.model(new, cache=cache)[:, -1:])[0, 0].argmax()
        out.append(int(scalar(best)))
        new = best.reshape(1, 1)
    return out
