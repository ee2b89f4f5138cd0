"""Final hidden states at chosen positions only, of rows that hold one document each or several.

Two facts of Gemma 4 E2B and E4B make this a fraction of the whole forward pass, and exact; tests compare it with
mlx-lm's own pass:

- The upper layers (20 of E2B's 35, with the double-wide MLP: 69 % of the stack's FLOPs) reuse the keys and values of
  the last two layers below them, so nothing they compute at one position is visible to another. They run only where a
  result is wanted: with masked prompts, at the supervised positions, with no padding between rows but in attention.
- Attention within a document, causal and within the sliding window, is a mask; so documents may lie behind one another
  in a row. Positions are counted within the document (row positions give the same scores but for rounding: the
  gradient's relative error rises from 2e-4 to 1e-3 in float32).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.layers import geglu

Rotation = tuple[mx.array, mx.array]  # cosines and sines, float32, [B, 1, L, head_dim / 2]


class Layout(NamedTuple):
    """Rows of tokens, and the positions whose states are wanted. Arrays of int32, so that a compiled step takes them.

    Attributes:
        tokens: [B, L].
        document: [B, L], the same number within a document of a row, and another for padding.
        position: [B, L], counted from 0 in each document.
        chosen: [N], places in the flattened rows (row * L + column), row after row, each row's in order.
        grid: [B, S], which of `chosen` are a row's; what is too much in a row may be anything.
        back: [N], where in the flattened grid each of `chosen` is.
    """

    tokens: mx.array
    document: mx.array
    position: mx.array
    chosen: mx.array
    grid: mx.array
    back: mx.array


def states_at(text: Any, layout: Layout, *, checkpoint: bool = False, key: mx.array | None = None) -> mx.array:
    """Final, normalised hidden states [N, D] at the chosen positions.

    Args:
        text: mlx-lm's gemma4_text.Model of a dense model (E2B, E4B).
        checkpoint: recompute each layer in the backward pass instead of keeping what is inside it.
        key: of the adapters' dropout; the same key draws the same masks, in the recomputation too.
    """
    model, args = text.model, text.args
    embedded = model.embed_tokens(layout.tokens)
    h = embedded * model.embed_scale
    inputs = model._project_per_layer_inputs(
        h, model._get_per_layer_inputs(layout.tokens, embedded)
    )  # [B, L, layers, d]
    keys = mx.random.split(key, len(model.layers)) if key is not None else [None] * len(model.layers)
    column = mx.broadcast_to(mx.arange(layout.tokens.shape[1]), layout.tokens.shape)
    masks = _masks(column, layout.document, column, layout.document, args.sliding_window)
    turns = _rotations(model.layers, layout.position)
    own = args.num_hidden_layers - args.num_kv_shared_layers
    kv: dict[str, tuple[mx.array, mx.array]] = {}
    for i, layer in enumerate(model.layers[:own]):
        kind = layer.layer_type
        run = _own_block(masks[kind], turns[kind])
        h, *kv[kind] = _run(layer, run, checkpoint, keys[i], h, inputs[:, :, i])

    def at_grid(x: mx.array) -> mx.array:
        return mx.take(x.reshape(-1), mx.take(layout.chosen, layout.grid))

    h = mx.take(h.reshape(-1, h.shape[-1]), layout.chosen, axis=0)
    inputs = mx.take(inputs.reshape(-1, *inputs.shape[2:]), layout.chosen, axis=0)
    masks = _masks(at_grid(column), at_grid(layout.document), column, layout.document, args.sliding_window)
    turns = _rotations(model.layers[own:], mx.take(layout.position.reshape(-1), layout.chosen)[None])
    for i, layer in enumerate(model.layers[own:], own):
        kind = layer.layer_type
        block = _shared_block(masks[kind], turns[kind], layout)
        h = _run(layer, block, checkpoint, keys[i], h, inputs[:, i], *kv[kind])
    out: mx.array = model.norm(h)
    return out


def check_supported(text: Any, where: str = "") -> None:
    """Whether `states_at` computes this model.

    Raises:
        ModelError: it is a Gemma 4 of another structure than E2B's and E4B's: without per-layer embeddings, with keys
            that are values, or with experts.
    """
    args = text.args
    if not args.hidden_size_per_layer_input or args.attention_k_eq_v or args.enable_moe_block:
        what = (
            "this Gemma 4 has no per-layer embeddings, shares keys with values, or has experts, as E2B and E4B do not"
        )
        raise ModelError(what, where=where, fix="train google/gemma-4-E2B-it or google/gemma-4-E4B-it")


def _run(layer: nn.Module, block: Callable[..., Any], checkpoint: bool, key: mx.array | None, *arrays: mx.array) -> Any:
    """`block(layer, *arrays)`; under a checkpoint the shared K/V are traced arguments and results, or their gradient
    would be lost without a word."""
    if not checkpoint:
        if key is not None:
            lora.set_dropout_key(layer, key)
        return block(layer, *arrays)

    def again(parameters: Any, *arrays: mx.array) -> Any:
        layer.update(parameters)
        if key is not None:
            lora.set_dropout_key(layer, key)
        return block(layer, *arrays)

    return mx.checkpoint(again)(layer.trainable_parameters(), *arrays)


def _own_block(mask: mx.array, turn: Rotation) -> Callable[..., tuple[mx.array, mx.array, mx.array]]:
    """mlx-lm's DecoderLayer, with rotation and mask given; also returns keys and values [B, heads, L, head_dim]."""

    def block(layer: Any, h: mx.array, inputs: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        a = layer.self_attn
        x = layer.input_layernorm(h)
        keys, values = (project(x).reshape(*x.shape[:2], a.n_kv_heads, -1) for project in (a.k_proj, a.v_proj))
        keys = _rotate(a.k_norm(keys).transpose(0, 2, 1, 3), turn)
        values = a.v_norm(values).transpose(0, 2, 1, 3)
        queries = _rotate(_queries(a, x), turn)
        seen = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=a.scale, mask=mask)
        return _rest(layer, h, seen.transpose(0, 2, 1, 3).reshape(*h.shape[:2], -1), inputs), keys, values

    return block


def _shared_block(mask: mx.array, turn: Rotation, layout: Layout) -> Callable[..., mx.array]:
    """The same for a K/V-shared layer at the chosen positions: h [N, D]; only attention is laid out in rows."""
    rows, width = layout.grid.shape

    def block(layer: Any, h: mx.array, inputs: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        a = layer.self_attn
        queries = _rotate(_queries(a, layer.input_layernorm(h)[None]), turn)  # [1, heads, N, head_dim]
        if rows > 1:
            queries = mx.take(queries[0], layout.grid, axis=1).transpose(1, 0, 2, 3)  # [B, heads, S, head_dim]
        seen = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=a.scale, mask=mask)
        seen = seen.transpose(0, 2, 1, 3).reshape(rows * width, -1)
        if rows > 1:
            seen = mx.take(seen, layout.back, axis=0)
        return _rest(layer, h, seen, inputs)

    return block


def _queries(attention: Any, x: mx.array) -> mx.array:
    q = attention.q_proj(x).reshape(*x.shape[:2], attention.n_heads, attention.head_dim)
    out: mx.array = attention.q_norm(q).transpose(0, 2, 1, 3)
    return out


def _rest(layer: Any, h: mx.array, seen: mx.array, inputs: mx.array) -> mx.array:
    """A layer behind its attention: output projection, MLP, per-layer input."""
    h = h + layer.post_attention_layernorm(layer.self_attn.o_proj(seen))
    mlp, x = layer.mlp, layer.pre_feedforward_layernorm(h)
    h = h + layer.post_feedforward_layernorm(mlp.down_proj(geglu(mlp.gate_proj(x), mlp.up_proj(x))))
    gated = geglu(layer.per_layer_input_gate(h), inputs)
    h = h + layer.post_per_layer_input_norm(layer.per_layer_projection(gated))
    out: mx.array = h * layer.layer_scalar
    return out


def _masks(
    at: mx.array, at_document: mx.array, column: mx.array, document: mx.array, window: int
) -> dict[str, mx.array]:
    """Boolean masks [B, 1, queries, keys] of both kinds of layer: causal, in the same document, within the window."""
    back = at[:, :, None] - column[:, None]
    visible = (at_document[:, :, None] == document[:, None]) & (back >= 0)
    return {"full_attention": visible[:, None], "sliding_attention": (visible & (back < window))[:, None]}


def _rotations(layers: list[Any], position: mx.array) -> dict[str, Rotation]:
    """Of positions [B, L], for mlx-lm's two kinds of RoPE: plain, and proportional (infinite periods stand still)."""
    turns: dict[str, Rotation] = {}
    for layer in layers:
        if layer.layer_type not in turns:
            rope = layer.self_attn.rope
            periods = getattr(rope, "_freqs", None)
            if periods is None:
                periods = rope.base ** (mx.arange(0, rope.dims, 2, dtype=mx.float32) / rope.dims)
            angle = position[:, None, :, None].astype(mx.float32) / periods
            turns[layer.layer_type] = mx.cos(angle), mx.sin(angle)
    return turns


def _rotate(x: mx.array, turn: Rotation) -> mx.array:
    """In float32, as mlx's own kernel does inside."""
    cos, sin = turn
    a, b = mx.split(x.astype(mx.float32), 2, axis=-1)
    return mx.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
