"""Perplexity on held-out rows: exp of the mean negative log-probability of what a model would be trained to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_gemma.data.formats import Row
from mlx_gemma.decode.scores import forced
from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.resample import Interval
from mlx_gemma.evaluate.stats import LEVEL
from mlx_gemma.gemma4.load import Gemma


@dataclass(frozen=True)
class Perplexity:
    """Of `rows`: the summed negative log-probability (nats) of each row's supervised tokens, and their number."""

    nats: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def value(self) -> float:
        return math.exp(math.fsum(self.nats) / sum(self.tokens))

    @property
    def interval(self) -> Interval:
        """95 %, percentile bootstrap over rows."""
        nats, tokens = np.array(self.nats), np.array(self.tokens, np.float64)
        draw = np.random.default_rng(0).integers(len(nats), size=(2_000, len(nats)))
        low, high = np.quantile(nats[draw].sum(1) / tokens[draw].sum(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return math.exp(low), math.exp(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.4g} ({low:.4g}-{high:.4g}), {sum(self.tokens):,} tokens of {len(self.tokens):,} rows"


def perplexity(
    gemma: Gemma, rows: Sequence[Row], progress: Callable[[int, int], None] = lambda done, of: None
) -> Perplexity:
    """One forward pass a row; the model's turns and their end count, as in training, by all turns.

    Raises:
        UserError: no rows, or a row longer than the context or without a turn of the model.
    """
    if not rows:
        raise UserError("no rows to take the perplexity of")
    nats, tokens = [], []
    for done, row in enumerate(rows, 1):
        example = gemma.template.example(row.messages)
        if len(example.tokens) > gemma.context or not example.targets:
            what = "nothing to predict in it" if not example.targets else f"longer than the context, {gemma.context}"
            raise UserError(what, where=row.where, fix="leave the row out")
        scores = forced(gemma.text, example.tokens, 1, 1)
        kept = [s.logprob for s, counted in zip(scores, example.supervised[1:], strict=True) if counted]
        nats.append(-math.fsum(kept))
        tokens.append(len(kept))
        progress(done, len(rows))
    return Perplexity(tuple(nats), tuple(tokens))
