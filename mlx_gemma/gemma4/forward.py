"""Final hidden states at chosen positions only, for a fraction of the whole forward pass.

Layers that share their K/V (20 of E2B's 35, with the double-wide MLP: 69 % of the stack's FLOPs) reuse the keys and
values of the last two layers below them, so nothing they compute at one position is visible to another. They need to
run only where a result is wanted: with masked prompts, at the supervised positions. Exact; a test compares it with
mlx-lm's own pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

Rotation = tuple[mx.array, mx.array]  # cosines and sines, [B, 1, S, head_dim / 2]


def states_at(text: Any, tokens: mx.array, at: mx.array, *, checkpoint: bool = False) -> mx.array:
    """Final, normalised hidden states [B, S, D] at positions `at` [B, S] of right-padded rows `tokens` [B, L].

    Args:
        text: mlx-lm's gemma4_text.Model of a dense model (E2B, E4B).
        checkpoint: recompute each layer in the backward pass instead of keeping what is inside it.
    """
    model, args = text.model, text.args
    embedded = model.embed_tokens(tokens)
    h = embedded * model.embed_scale
    inputs = model._project_per_layer_inputs(h, model._get_per_layer_inputs(tokens, embedded))  # [B, L, layers, d]
    masks = model._make_masks(h, [None] * len(model.layers))
    own = args.num_hidden_layers - args.num_kv_shared_layers
    kv: dict[str, tuple[mx.array, mx.array]] = {}
    for i, layer in enumerate(model.layers[:own]):
        h, *kv[layer.layer_type] = _run(layer, _lower(masks[i]), checkpoint, h, inputs[:, :, i])

    h = mx.take_along_axis(h, at[:, :, None], axis=1)
    inputs = mx.take_along_axis(inputs, at[:, :, None, None], axis=1)
    visible = at[:, :, None] >= mx.arange(tokens.shape[1])
    near = visible & (at[:, :, None] < mx.arange(tokens.shape[1]) + args.sliding_window)
    mask = {"full_attention": visible[:, None], "sliding_attention": near[:, None]}
    turn: dict[str, Rotation] = {}
    for i, layer in enumerate(model.layers[own:], own):
        kind = layer.layer_type
        if kind not in turn:
            turn[kind] = _rotation(layer.self_attn, at, h.dtype)
        h = _run(layer, _upper(mask[kind], turn[kind]), checkpoint, h, inputs[:, :, i], *kv[kind])
    out: mx.array = model.norm(h)
    return out


def _run(layer: nn.Module, function: Callable[..., Any], checkpoint: bool, *arrays: mx.array) -> Any:
    """`function(layer, *arrays)`; under a checkpoint the shared K/V are traced arguments and results, or their gradient
    would be lost without a word."""
    if not checkpoint:
        return function(layer, *arrays)

    def again(parameters: Any, *arrays: mx.array) -> Any:
        layer.update(parameters)
        return function(layer, *arrays)

    return mx.checkpoint(again)(layer.trainable_parameters(), *arrays)


def _lower(mask: Any) -> Callable[..., tuple[mx.array, mx.array, mx.array]]:
    def run(layer: Any, h: mx.array, inputs: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        h, (keys, values), _ = layer(h, mask, None, per_layer_input=inputs)
        return h, keys, values

    return run


def _upper(mask: mx.array, turn: Rotation) -> Callable[..., mx.array]:
    """mlx-lm's DecoderLayer on a K/V-shared layer, with the queries' rotation and mask given."""

    def run(layer: Any, h: mx.array, inputs: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        attention = layer.self_attn
        batch, length, _ = h.shape
        q = attention.q_proj(layer.input_layernorm(h)).reshape(batch, length, attention.n_heads, attention.head_dim)
        q = _rotate(attention.q_norm(q).transpose(0, 2, 1, 3), turn)
        seen = mx.fast.scaled_dot_product_attention(q, keys, values, scale=attention.scale, mask=mask)
        seen = attention.o_proj(seen.transpose(0, 2, 1, 3).reshape(batch, length, -1))
        h = h + layer.post_attention_layernorm(seen)
        h = h + layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(h)))
        gate = nn.gelu_approx(layer.per_layer_input_gate(h)) * inputs
        h = h + layer.post_per_layer_input_norm(layer.per_layer_projection(gate))
        out: mx.array = h * layer.layer_scalar
        return out

    return run


def _rotation(attention: Any, at: mx.array, dtype: mx.Dtype) -> Rotation:
    """Of positions `at`, for mlx-lm's two kinds of RoPE: plain, and proportional (infinite periods stand still)."""
    rope = attention.rope
    periods = getattr(rope, "_freqs", None)
    if periods is None:
        periods = rope.base ** (mx.arange(0, rope.dims, 2, dtype=mx.float32) / rope.dims)
    angle = at[:, None, :, None].astype(mx.float32) / periods
    return mx.cos(angle).astype(dtype), mx.sin(angle).astype(dtype)


def _rotate(x: mx.array, turn: Rotation) -> mx.array:
    cos, sin = turn
    a, b = mx.split(x, 2, axis=-1)
    return mx.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
