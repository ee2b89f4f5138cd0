"""One update: gradients of micro-batches, weighted by supervised tokens, clipped, guarded, applied.

batch 8 x accumulate 1 and batch 1 x accumulate 8 give the same update, because losses are summed and divided once by
all targets (a mean of means, as mlx-lm takes it, weights short answers more).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map

from mlx_gemma.errors import UserError
from mlx_gemma.platform import scalar
from mlx_gemma.recipe import TrainSection
from mlx_gemma.training.batches import Batch
from mlx_gemma.training.loss import summed_loss

PATIENCE = 5  # non-finite updates in a row before the run is given up


class Update(NamedTuple):
    loss: float  # mean negative log-probability of the update's targets
    norm: float  # gradient norm before clipping
    targets: int
    tokens: int  # computed positions, padding included
    skipped: str | None  # the rows of an update that was not applied


def learning_rate(train: TrainSection, step: int, steps: int) -> float:
    """Rate of update `step` (from 0) of `steps`: linear warm-up to the peak, then the schedule down to 0."""
    warmup = round(train.warmup * steps)
    if step < warmup:
        return train.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if train.schedule == "cosine":
        return train.lr * 0.5 * (1 + math.cos(math.pi * done))
    return train.lr * (1 - done) if train.schedule == "linear" else train.lr


class Updater:
    """AdamW on a model's trainable parameters.

    Raises:
        UserError: after `PATIENCE` non-finite updates in a row, naming the rows of the last.
    """

    def __init__(self, model: nn.Module, text: Any, train: TrainSection, where: Callable[[int], str]) -> None:
        self.model, self.train, self.where = model, train, where
        self.adamw = optim.AdamW(learning_rate=train.lr, weight_decay=train.weight_decay, bias_correction=True)
        self.adamw.init(model.trainable_parameters())
        self.loss_and_grad = nn.value_and_grad(
            model, lambda batch: summed_loss(text, batch, checkpoint=train.checkpointing)
        )
        self.failures = 0

    def __call__(self, batches: list[Batch], rate: float) -> Update:
        total, grads = mx.array(0.0), None
        for batch in batches:
            part, g = self.loss_and_grad(batch)
            total = total + part
            grads = g if grads is None else tree_map(mx.add, grads, g)
            mx.eval(total, grads)
        targets = sum(b.targets for b in batches)
        grads = tree_map(lambda g: g / targets, grads)
        squares = [mx.square(g.astype(mx.float32)).sum() for _, g in tree_flatten(grads)]
        norm, loss = math.sqrt(scalar(mx.stack(squares).sum())), scalar(total) / targets
        tokens = sum(b.tokens.size for b in batches)
        if not math.isfinite(norm + loss):
            return Update(loss, norm, targets, tokens, self._skipped(batches))
        self.failures = 0
        scale = min(1.0, self.train.clip / norm) if norm > 0 else 1.0
        self.adamw.learning_rate = rate
        self.adamw.update(self.model, tree_map(lambda g: g * scale, grads))
        mx.eval(self.model.trainable_parameters(), self.adamw.state)
        return Update(loss, norm, targets, tokens, None)

    def _skipped(self, batches: list[Batch]) -> str:
        self.failures += 1
        rows = ", ".join(self.where(r) for b in batches for r in b.rows)
        if self.failures >= PATIENCE:
            raise UserError(
                f"{PATIENCE} updates in a row had a non-finite loss or gradient; the last held {rows}",
                fix="lower train.lr, or look at these rows",
            )
        return rows
