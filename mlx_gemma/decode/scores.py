"""What the model thought of a token and of its rivals: float32, before temperature and cuts.

On a base in 16 bits the head's product is rounded (steps of 0.125 at logits of 16 to 32, so the two best tokens often
tie): the logits that are shown are computed again in float32 from the last hidden state, K + 1 rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_gemma.decode.sample import Sampling
from mlx_gemma.gemma4.layers import head, soft_capped

FORWARD = 512  # tokens a forward pass
HEAD = 16  # positions whose logits are held at once: 92 MB with what is made of them at a vocabulary of 262,144


class Scores(NamedTuple):
    """Of one token; log-probabilities and entropy in nats."""

    logprob: float
    entropy: float
    rank: int  # 0 for the most probable token
    top: list[tuple[int, float]]  # the most probable tokens, best first
    drawn: dict[int, float]  # probability that sampling draws it, of `top` and the token; empty where it is greedy


class Arrays(NamedTuple):
    """The same of N tokens, on the device."""

    logprob: mx.array  # [N]
    entropy: mx.array  # [N]
    rank: mx.array  # [N]
    ids: mx.array  # [N, K]
    values: mx.array  # [N, K]
    drawn: mx.array | None  # [N, K + 1]: of the top, and of the token itself


def measure(
    text: Any, hidden: mx.array, raw: mx.array, tokens: mx.array, top: int, sampling: Sampling | None = None
) -> Arrays:
    """Scores of tokens [N], from final hidden states [N, D] and the logits [N, V] of them, float32."""
    ids = mx.argpartition(-raw, kth=min(top, raw.shape[-1]) - 1, axis=-1)[:, :top]
    both = mx.concatenate([ids, tokens[:, None]], axis=1)
    logits = exact(text, hidden, raw, both)
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    values = mx.take_along_axis(logprobs, ids, axis=1)
    order = mx.argsort(-values, axis=1)  # MLX leaves the order inside a partition open
    ids, values = mx.take_along_axis(ids, order, axis=1), mx.take_along_axis(values, order, axis=1)
    mine = mx.take_along_axis(logprobs, tokens[:, None], axis=1)
    entropy = -(mx.exp(logprobs) * logprobs).sum(axis=-1)
    drawn = None
    if sampling is not None and not sampling.greedy:
        weights = mx.stack([sampling.distribution(row) for row in raw])
        shares = mx.softmax(weights, axis=-1)
        drawn = mx.take_along_axis(shares, mx.concatenate([ids, tokens[:, None]], axis=1), axis=1)
    return Arrays(mine[:, 0], entropy, (logprobs > mine).sum(axis=-1), ids, values, drawn)


def exact(text: Any, hidden: mx.array, logits: mx.array, ids: mx.array) -> mx.array:
    """Logits [N, V] with those of `ids` [N, K] computed again in float32, where the head rounded them.

    A quantised table is left as it is: its product is taken from codes that only its own kernel reads alike.
    """
    table = text.model.embed_tokens if text.tie_word_embeddings else text.lm_head
    if not isinstance(table, (nn.Embedding, nn.Linear)) or table.weight.dtype == mx.float32:
        return logits
    rows = table.weight[ids].astype(mx.float32)  # [N, K, D]
    again = soft_capped(text, (rows @ hidden.astype(mx.float32)[:, :, None])[..., 0])
    return mx.put_along_axis(logits, ids, again, axis=1)


def read(arrays: Arrays, tokens: Sequence[int]) -> list[Scores]:
    """From the device."""
    logprob, entropy, rank, ids, values = (np.array(a).tolist() for a in arrays[:5])
    drawn = np.array(arrays.drawn).tolist() if arrays.drawn is not None else [[]] * len(tokens)
    return [
        Scores(
            logprob[i],
            entropy[i],
            rank[i],
            list(zip(ids[i], values[i], strict=True)),
            dict(zip([*ids[i], token], drawn[i], strict=True)) if drawn[i] else {},
        )
        for i, token in enumerate(tokens)
    ]


def states(text: Any, tokens: Sequence[int], first: int, cache: Any = None) -> Iterator[mx.array]:
    """Final hidden states [n, D] of the positions from `first` on, a few at a time; `tokens` are put into the cache.

    Cost: one forward pass in parts; the K/V-shared upper layers are not computed for what is not asked for, but for the
    part in which `first` lies.
    """
    cache = cache if cache is not None else text.make_cache()
    ids = mx.array(list(tokens), mx.int32)
    at = 0
    while at < len(tokens):
        last = min(at + FORWARD, first if at < first else len(tokens))
        hidden = text.model(ids[None, at:last], cache=cache)[0]
        if at < first:
            mx.eval([c.state for c in cache])
        else:
            mx.eval(hidden, [c.state for c in cache])
            yield hidden
        at = last


def forced(text: Any, tokens: Sequence[int], first: int, top: int, sampling: Sampling | None = None) -> list[Scores]:
    """Scores of `tokens[first:]`, each given all before it; `first` is at least 1. One forward pass."""
    out: list[Scores] = []
    for hidden in states(text, tokens[:-1], first - 1):
        for i in range(0, len(hidden), HEAD):
            rows = hidden[i : i + HEAD]
            now = list(tokens[first + len(out) : first + len(out) + len(rows)])
            out += read(measure(text, rows, head(text, rows), mx.array(now, mx.int32), top, sampling), now)
    return out
