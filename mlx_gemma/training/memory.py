"""The memory a training should take, counted from shapes before it starts.

Peak = weights, adapter, optimiser state and gradients, and the most that one forward and backward pass holds: what each
layer keeps for its backward pass (with checkpointing, the layers' inputs, and the inside of one layer), one layer's
gradients, and the head's logits or not at the same time as those. Layers are counted as forward.py computes them;
the few constants that no shape gives are fitted on MLX's CPU backend, and LOG.md has the errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx.utils import tree_flatten

from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import AdapterSection, TrainSection
from mlx_gemma.training.batches import epoch, shape
from mlx_gemma.training.loss import peak_bytes

# Fitted: copies of the attention scores kept, and of inner activations and scores in a layer's gradient; with
# checkpointing MLX recomputes a layer while the one above is still held.
KEPT_SCORES, GRADIENT_INNER, GRADIENT_SCORES, RECOMPUTED = 1.1, 4.0, 2.0, 2.0
MOMENTS = {"adamw": 2.0, "adam": 2.0, "adafactor": 0.1, "lion": 1.0, "muon": 1.0, "sgd": 1.0}


def predicted_peak(
    text: Any, train: TrainSection, adapter: AdapterSection, examples: Sequence[Example], trainable: int
) -> int:
    """Bytes that MLX's arrays should take at most, over all batches of the first epoch.

    Args:
        text: mlx-lm's gemma4_text.Model with what is trained attached.
        trainable: number of trained parameters.
    """
    weights = sum(v.nbytes for _, v in tree_flatten(text.parameters()))
    size = text.model.per_layer_model_projection.weight.dtype.size  # as computed in: never quantised, never trained
    lengths = [len(e.tokens) for e in examples]
    row = train.length if train.layout == "packed" else None
    shapes = {(len(rows), *shape(examples, rows, row)) for update in epoch(lengths, train, 0) for rows in update}
    most = max(_pass_bytes(text.args, train.checkpointing, adapter, size, *s) for s in shapes)
    if adapter.kind == "full" and size < 4:
        most += trainable * size  # float32 masters, cast for each product and kept for its gradient
    own = trainable * 4  # gradients come as activations go
    held = 0 if train.accumulate == 1 else own
    state = trainable * 4 * MOMENTS[train.optimizer]
    updating = state + 3 * own  # gradients, clipped ones, and the new parameters
    return int(weights + max(state + held + max(most, own), updating))


def _pass_bytes(
    args: Any, checkpointing: bool, adapter: AdapterSection, size: int, rows: int, length: int, chosen: int, width: int
) -> float:
    """Of one forward and backward pass over `rows` rows of `length`, `chosen` positions, `width` of them in a row."""
    own = args.num_hidden_layers - args.num_kv_shared_layers
    grid = [
        (rows * length, rows * length) if i < own else (chosen, rows * width) for i in range(args.num_hidden_layers)
    ]
    layers = [_layer_bytes(args, i, n, places * length, adapter, size) for i, (n, places) in enumerate(grid)]
    states: float = sum(2 * n * args.hidden_size * size for n, _ in grid)  # and their gradients
    inputs: float = rows * length * args.num_hidden_layers * args.hidden_size_per_layer_input * size
    logits = peak_bytes(chosen, args.vocab_size)
    gradient = max(g for _, g in layers)
    if not checkpointing:
        return sum(k for k, _ in layers) + 3 * inputs + max(logits, gradient)
    again = [RECOMPUTED * k + g for k, g in layers]
    again[own:] = [each + logits for each in again[own:]]  # the head is not done when these begin
    return states + 2 * sum(_key_values(args, rows * length, size)) + 3 * inputs + max(again)


def _key_values(args: Any, tokens: int, size: int) -> list[float]:
    own = args.num_hidden_layers - args.num_kv_shared_layers
    return [tokens * 2 * args.num_key_value_heads * _head(args, i) * size for i in range(own)]


def _head(args: Any, index: int) -> int:
    return int(args.global_head_dim if args.layer_types[index] == "full_attention" else args.head_dim)


def _layer_bytes(
    args: Any, index: int, tokens: int, pairs: int, adapter: AdapterSection, size: int
) -> tuple[float, float]:
    """What a layer keeps, and what its backward pass takes beside it; `pairs` of query and key."""
    shared = index >= args.num_hidden_layers - args.num_kv_shared_layers
    head = _head(args, index)
    queries, keys = args.num_attention_heads * head, args.num_key_value_heads * head
    inner = args.intermediate_size * (2 if shared and args.use_double_wide_mlp else 1)
    a_token = 9 * args.hidden_size + 4 * queries + 3 * inner + 2 * args.hidden_size_per_layer_input
    if adapter.kind != "full":
        a_token += 7 * adapter.rank
    if adapter.kind == "dora":  # what is stretched, beside what it is added to
        a_token += 2 * (2 * args.hidden_size + queries + 2 * inner)
    if not shared:
        a_token += 4 * keys
    scores = args.num_attention_heads * pairs
    kept = tokens * a_token + KEPT_SCORES * scores
    return kept * size, (tokens * GRADIENT_INNER * inner + GRADIENT_SCORES * scores) * size
