"""What a recipe will do, before it does it: rows, tokens, parameters, updates, and the memory it should take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mlx.utils import tree_flatten

from mlx_gemma import platform
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.recipe import Recipe, Resolved
from mlx_gemma.training.batches import round_up
from mlx_gemma.training.loop import steps_of
from mlx_gemma.training.loss import peak_bytes
from mlx_gemma.training.prepare import Prepared, Split


@dataclass(frozen=True)
class Plan:
    modules: dict[str, int]
    parameters: int
    rows: int
    valid_rows: int
    valid_rejected: int
    targets: int
    lengths: dict[str, int]  # percentiles of the rows' tokens
    cut: int
    dropped: int
    audit: list[str]
    steps: int
    peak_bytes: int
    memory_bytes: int


def plan(resolved: Resolved, ready: Prepared) -> Plan:
    lengths = ready.train.lengths
    return Plan(
        modules=ready.attached.modules,
        parameters=ready.attached.parameters,
        rows=len(lengths),
        valid_rows=len(ready.valid.examples) if ready.valid else 0,
        valid_rejected=ready.valid_rejected,
        targets=ready.train.targets,
        lengths={f"p{q}": int(np.percentile(lengths, q)) for q in (5, 50, 95, 100)},
        cut=ready.train.cut,
        dropped=ready.train.dropped,
        audit=ready.report.summary_lines(),
        steps=steps_of(resolved, ready.train),
        peak_bytes=predicted_peak(ready.gemma, resolved.recipe, ready.train, ready.attached.parameters),
        memory_bytes=platform.memory_bytes(),
    )


def predicted_peak(gemma: Gemma, recipe: Recipe, split: Split, trainable: int) -> int:
    """Bytes that MLX's arrays are expected to take at most: weights, adapter and its AdamW state, activations.

    Activations are counted from the shapes that the backward pass keeps of each layer for the longest batch, with
    counts fitted to nano on the CPU backend; with checkpointing, one layer's and every layer's input. An estimate:
    LOG.md has it beside measurements.
    """
    args = gemma.text.args
    weights = sum(v.nbytes for _, v in tree_flatten(gemma.model.parameters()))
    size = 4 if platform.backend() == "cpu" else 2
    length, chosen = round_up(int(split.lengths.max()) - 1), round_up(split.most_targets)
    rows = min(recipe.train.batch, len(split.examples))
    own = args.num_hidden_layers - args.num_kv_shared_layers
    positions = [rows * (length if i < own else chosen) for i in range(args.num_hidden_layers)]
    layers = [_layer_bytes(args, i, n, length, size, recipe.adapter.rank) for i, n in enumerate(positions)]
    kept = max(layers) + sum(positions) * args.hidden_size * size if recipe.train.checkpointing else sum(layers)
    per_layer = rows * length * args.num_hidden_layers * args.hidden_size_per_layer_input * size * 3
    logits = peak_bytes(rows * chosen, args.vocab_size)
    copies = 3 if recipe.train.accumulate == 1 else 4  # AdamW's two moments, the gradient, the gradient being summed
    return int(weights + trainable * 4 * copies + kept + per_layer + logits)


def _layer_bytes(args: Any, index: int, tokens: int, length: int, size: int, rank: int) -> int:
    full = args.layer_types[index] == "full_attention"
    shared = index >= args.num_hidden_layers - args.num_kv_shared_layers
    head = args.global_head_dim if full else args.head_dim
    queries, keys = args.num_attention_heads * head, args.num_key_value_heads * head
    inner = args.intermediate_size * (2 if shared and args.use_double_wide_mlp else 1)
    width = 16 * args.hidden_size + 5 * queries + (0 if shared else 6 * keys) + 5 * inner + 7 * rank
    scores = 1.2 * args.num_attention_heads * length  # the training attention keeps them, on Metal too
    # On a bfloat16 base every adapter widens its input to float32 and keeps that copy.
    copies = 0 if size == 4 else 4 * (5 * args.hidden_size + queries + inner)
    return int(tokens * ((width + scores) * size + copies))


def check_memory(planned: Plan) -> None:
    """Refuse a run that cannot fit.

    Raises:
        UserError: the predicted peak exceeds the machine's memory.
    """
    if planned.peak_bytes > planned.memory_bytes:
        raise UserError(
            f"needs about {planned.peak_bytes / 1e9:.1f} GB, this machine has {planned.memory_bytes / 1e9:.1f} GB",
            fix="lower train.batch or train.length, or set train.checkpointing=true",
        )
