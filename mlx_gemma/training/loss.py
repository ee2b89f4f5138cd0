"""Cross entropy at the supervised positions only, with Gemma 4's soft-capped tied head, in float32.

The full [B, L, vocabulary] logits never exist: hidden states are gathered first, then the head runs on chunks of them,
each chunk recomputed in the backward pass. With a vocabulary of 262,144 one float32 chunk of 128 positions is 128 MiB.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_gemma.gemma4.layers import head
from mlx_gemma.training.batches import Batch

CHUNK = 128


def summed_loss(text: Any, batch: Batch) -> mx.array:
    """Sum of the targets' negative log-probabilities, float32 scalar.

    Args:
        text: mlx-lm's gemma4_text.Model.
        batch: see `Batch`; positions of weight 0 add nothing.
    """
    hidden = text.model(batch.tokens)
    hidden = hidden.reshape(-1, hidden.shape[-1])[batch.source]
    total = mx.array(0.0)
    for i in range(0, hidden.shape[0], CHUNK):
        part = slice(i, i + CHUNK)
        total = total + _chunk_loss(text, hidden[part], batch.target[part], batch.weight[part])
    return total


def _chunk_loss(text: Any, hidden: mx.array, target: mx.array, weight: mx.array) -> mx.array:
    def loss(hidden: mx.array, target: mx.array, weight: mx.array) -> mx.array:
        # mx.checkpoint differentiates every input; integer ones must be fenced off.
        logits = head(text, hidden)
        summed: mx.array = (nn.losses.cross_entropy(logits, mx.stop_gradient(target)) * weight).sum()
        return summed

    summed: mx.array = mx.checkpoint(loss)(hidden, target, weight)
    return summed
