"""Cross entropy at the supervised positions only, with Gemma 4's soft-capped tied head, in float32.

The full [B, L, vocabulary] logits never exist: the head runs on chunks of the supervised positions' hidden states, one
after another. The head is frozen, so each chunk's gradient with respect to its hidden states is taken in the forward
pass, its logits are let go, and the gradient reaches the states as a constant. (Chunks that merely checkpoint do not
bound the memory, as MLX evaluates them side by side: 2,048 MiB for 512 positions at a vocabulary of 262,144.)

With logits z = cap * y, y = tanh(head(h) / cap), the gradient of -log softmax(z)[target] with respect to head(h) is
(softmax(z) - onehot(target)) * (1 - y^2).
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_gemma.gemma4.forward import states_at
from mlx_gemma.gemma4.layers import head, raw_logits, soft_capped
from mlx_gemma.training.batches import Batch

CHUNK_BYTES = 32 * 2**20  # of one chunk's float32 logits


def chunk_size(vocabulary: int) -> int:
    """Positions a chunk: 32 at Gemma's vocabulary of 262,144, and 128 where it is small."""
    return min(128, max(16, CHUNK_BYTES // (4 * vocabulary)))


def peak_bytes(positions: int, vocabulary: int) -> int:
    """What head and gradient take at most: 11 logits buffers of a chunk, 5.3 where one chunk holds all (measured)."""
    size = chunk_size(vocabulary)
    return int((11 * size if positions > size else 5.3 * positions) * vocabulary * 4)


def summed_loss(
    text: Any, batch: Batch, *, gradient: bool = True, checkpoint: bool = False, key: mx.array | None = None
) -> mx.array:
    """Sum of the targets' negative log-probabilities, float32 scalar.

    Args:
        text: mlx-lm's gemma4_text.Model, its head frozen.
        batch: see `Batch`; positions of weight 0 add nothing.
        gradient: False where only the value is wanted: half the work in the head.
        checkpoint, key: see `states_at`.
    """
    hidden = states_at(text, batch.layout, checkpoint=checkpoint, key=key)
    fixed = mx.stop_gradient(hidden)
    total = mx.array(0.0)
    grads: list[mx.array] = []
    size = chunk_size(text.args.vocab_size)
    for i in range(0, hidden.shape[0], size):
        chunk = fixed[i : i + size]
        if i > 0:  # wait for the chunk before: MLX would run ahead and hold them all
            chunk = mx.depends(chunk, [total, *grads[-1:]])
        rest = (batch.target[i : i + size], batch.weight[i : i + size])
        if gradient:
            value, grad = _loss_and_gradient(text, chunk, *rest)
            grads.append(grad)
        else:
            value = nn.losses.cross_entropy(head(text, chunk), rest[0]) @ rest[1]
        total = total + value
    if not gradient:
        return total
    pull = (hidden * mx.concatenate(grads)).sum()
    through: mx.array = total + pull - mx.stop_gradient(pull)
    return through


def _loss_and_gradient(text: Any, hidden: mx.array, target: mx.array, weight: mx.array) -> tuple[mx.array, mx.array]:
    """Loss of a chunk [n, D], and its gradient with respect to `hidden`.

    One exponential serves both; written with logsumexp and softmax they would be three, of some 20 ns each on a CPU.
    """
    raw = raw_logits(text, hidden)
    logits = soft_capped(text, raw)
    cap = text.final_logit_softcapping
    top = logits.max(axis=-1, keepdims=True) if cap is None else cap  # capped logits cannot underflow from there
    powers = mx.exp(logits - top)
    z = powers.sum(axis=-1, keepdims=True)
    right = mx.take_along_axis(logits, target[:, None], axis=-1)
    value = (mx.log(z) + top - right)[:, 0] @ weight
    slope = powers / z - (mx.arange(raw.shape[-1]) == target[:, None])
    if cap is not None:
        slope = slope * (1 - mx.square(logits / cap))
    slope = (slope * weight[:, None]).astype(raw.dtype)
    _, (gradient,) = mx.vjp(lambda h: raw_logits(text, h), [hidden], [slope])
    return value, mx.stop_gradient(gradient)
