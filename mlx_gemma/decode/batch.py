"""Many answers at once: prompts padded on the left, a token of every row a step, rows leaving as they end.

A step of 16 rows reads the weights once where one by one reads them 16 times: most of a step's time, on a GPU as on a
CPU. Greedy answers are those of `generate`, but where two tokens are within the rounding of another order of sums.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import BatchKVCache, BatchRotatingKVCache, RotatingKVCache

from mlx_gemma.decode.generate import Generation
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.decode.scores import FORWARD, Scores, measure, read
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.layers import head
from mlx_gemma.gemma4.load import Gemma


def generate_batch(
    gemma: Gemma, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], max_tokens: int, top: int = 1
) -> Iterator[tuple[int, Generation, list[Scores]]]:
    """Answer all prompts together: (which prompt, its answer, a score for each of its tokens), in the order they end.

    Args:
        prompts: token ids, each from `prompt_tokens`; those of like length belong together, as the others are padded.
        samplings: one for each prompt. Equal seeds draw what `generate` draws.
        max_tokens: of each answer; fewer where the context ends.
        top: rivals in each score.

    Raises:
        UserError: an empty prompt, or as many tokens as the context.

    Memory: the caches of all rows, and `len(prompts) * vocabulary` float32 a few times. The stop token is scored, and
    is the last score of an answer that ends with `stop`.
    """
    if wrong := [p for p in prompts if not 0 < len(p) < gemma.context]:
        raise UserError(f"a prompt has {len(wrong[0])} tokens, the model's context {gemma.context}", fix="shorten it")
    text, started = gemma.text, time.perf_counter()
    cache, token = _prefill(text, prompts)
    rows = list(range(len(prompts)))
    keys = {r: s.key() for r, s in enumerate(samplings)}
    tokens: list[list[int]] = [[] for _ in rows]
    scores: list[list[Scores]] = [[] for _ in rows]
    first = 0.0
    while rows:
        hidden = text.model(token[:, None], cache=cache)[:, 0]
        logits = head(text, hidden)
        chosen = []
        for i, row in enumerate(rows):
            keys[row], now = mx.random.split(keys[row])
            chosen.append(samplings[row].choose(logits[i], now))
        token = mx.stack(chosen)
        found = np.array(token).tolist()
        first = first or time.perf_counter()
        going = []
        for i, (row, one) in enumerate(zip(rows, read(measure(text, hidden, logits, token, top), found), strict=True)):
            scores[row].append(one)
            stop = found[i] in gemma.stop_tokens
            if not stop:
                tokens[row].append(found[i])
            if stop or len(tokens[row]) == min(max_tokens, gemma.context - len(prompts[row])):
                times = (first - started, time.perf_counter() - first)
                answer = gemma.template.decode(tokens[row])
                finish = "stop" if stop else "length"
                yield row, Generation(answer, tokens[row], finish, len(prompts[row]), *times), scores[row]
            else:
                going.append(i)
        if len(going) < len(rows):
            rows = [rows[i] for i in going]
            if rows:
                token = token[mx.array(going)]
                for c in cache:
                    c.filter(mx.array(going))


def _prefill(text: Any, prompts: Sequence[Sequence[int]]) -> tuple[list[Any], mx.array]:
    """Caches that hold all but each prompt's last token, and those tokens [B]."""
    width = max(map(len, prompts))
    padding = [width - len(p) for p in prompts]
    ids = mx.array(np.stack([np.pad(np.array(p, np.int32), (n, 0)) for p, n in zip(prompts, padding, strict=True)]))
    cache = [
        BatchRotatingKVCache(c.max_size, padding) if isinstance(c, RotatingKVCache) else BatchKVCache(padding)
        for c in text.make_cache()
    ]
    for i in range(0, width - 1, FORWARD):
        text.model(ids[:, i : min(i + FORWARD, width - 1)], cache=cache)
        mx.eval([c.state for c in cache])
    return cache, ids[:, -1]
