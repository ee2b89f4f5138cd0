"""Cross entropy at the supervised positions only, with Gemma 4's soft-capped tied head, in float32.

The full [B, L, vocabulary] logits never exist: only the supervised positions' hidden states are, and the head runs on
chunks of them, one after another. The head is frozen, so each chunk's gradient is taken in the forward pass and its
logits are let go; the gradient reaches the hidden states as a constant. (Chunks that merely checkpoint do not bound the
memory: MLX evaluates them side by side. 2,048 MiB for 512 positions at a vocabulary of 262,144, which this brings to 12
buffers of one chunk.)
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_gemma.gemma4.forward import states_at
from mlx_gemma.gemma4.layers import head
from mlx_gemma.training.batches import Batch

CHUNK_BYTES = 64 * 2**20  # of one chunk's float32 logits


def chunk_size(vocabulary: int) -> int:
    """Positions a chunk: 64 at Gemma's vocabulary of 262,144."""
    return max(16, CHUNK_BYTES // (4 * vocabulary))


def peak_bytes(positions: int, vocabulary: int) -> int:
    """What head and gradient take at most: 12 logits buffers of a chunk, 5 where one chunk holds all (measured)."""
    size = chunk_size(vocabulary)
    return (12 * size if positions > size else 5 * positions) * vocabulary * 4


def summed_loss(text: Any, batch: Batch, *, gradient: bool = True, checkpoint: bool = False) -> mx.array:
    """Sum of the targets' negative log-probabilities, float32 scalar.

    Args:
        text: mlx-lm's gemma4_text.Model, its head frozen.
        batch: see `Batch`; positions of weight 0 add nothing.
        gradient: False where only the value is wanted: half the work in the head.
        checkpoint: see `states_at`.
    """
    hidden = states_at(text, batch.tokens, batch.source, checkpoint=checkpoint)
    hidden = hidden.reshape(-1, hidden.shape[-1])
    targets, weights = batch.target.reshape(-1), batch.weight.reshape(-1)

    def chunk_loss(hidden: mx.array, target: mx.array, weight: mx.array) -> mx.array:
        losses: mx.array = nn.losses.cross_entropy(head(text, hidden), target) * weight
        return losses.sum()

    fixed = mx.stop_gradient(hidden)
    total = mx.array(0.0)
    grads: list[mx.array] = []
    size = chunk_size(text.args.vocab_size)
    for i in range(0, hidden.shape[0], size):
        chunk = fixed[i : i + size]
        if i > 0:  # wait for the chunk before: MLX would run ahead and hold them all
            chunk = mx.depends(chunk, [total, *grads[-1:]])
        rest = (targets[i : i + size], weights[i : i + size])
        if gradient:
            value, grad = mx.value_and_grad(chunk_loss)(chunk, *rest)
            grads.append(grad)
        else:
            value = chunk_loss(chunk, *rest)
        total = total + value
    if not gradient:
        return total
    pull = (hidden * mx.stop_gradient(mx.concatenate(grads))).sum()
    through: mx.array = mx.stop_gradient(total) + pull - mx.stop_gradient(pull)
    return through
