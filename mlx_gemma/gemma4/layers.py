"""Pieces of the forward pass that we need apart from mlx-lm's model classes."""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def head(text: Any, hidden: mx.array) -> mx.array:
    """Soft-capped logits in float32, [..., vocabulary], of final hidden states [..., D].

    The product is taken in the weights' dtype, so on a bfloat16 base its rounding stays in (steps of 0.125 at logits of
    16 to 32); soft cap and what follows are float32, where mlx-lm's model goes on in bfloat16.

    Args:
        text: mlx-lm's gemma4_text.Model.
    """
    out: mx.array = text.model.embed_tokens.as_linear(hidden) if text.tie_word_embeddings else text.lm_head(hidden)
    out = out.astype(mx.float32)
    cap = text.final_logit_softcapping
    return mx.tanh(out / cap) * cap if cap is not None else out
