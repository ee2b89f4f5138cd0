"""Pieces of the forward pass that we need apart from mlx-lm's model classes."""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def head(text: Any, hidden: mx.array) -> mx.array:
    """Soft-capped logits in float32, [..., vocabulary], of final hidden states [..., D].

    The product is taken in the weights' dtype and widened before the soft cap: mlx-lm's model caps and normalises in
    bfloat16, which moves log-probabilities by up to 0.06 nats (shared vocabulary of 262,144, synthetic logits).

    Args:
        text: mlx-lm's gemma4_text.Model.
    """
    out: mx.array = text.model.embed_tokens.as_linear(hidden) if text.tie_word_embeddings else text.lm_head(hidden)
    out = out.astype(mx.float32)
    cap = text.final_logit_softcapping
    return mx.tanh(out / cap) * cap if cap is not None else out
