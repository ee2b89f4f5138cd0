"""The loss over a whole split, weighted by token, and which update had the lowest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_gemma import platform
from mlx_gemma.errors import UserError
from mlx_gemma.training import batches
from mlx_gemma.training.loss import summed_loss
from mlx_gemma.training.prepare import Prepared, Split


@dataclass
class Best:
    """The lowest validation loss so far, its update, and how many measurements have been no lower since."""

    loss: float = math.inf
    step: int = 0
    stale: int = 0


def mean_loss(ready: Prepared, split: Split, batch: int, group: Any = None) -> float:
    """Mean negative log-probability over all targets of a split, weighted by token, dropout off.

    Several machines take turns at the batches, and all get the mean over all of them.

    Raises:
        UserError: it is not finite.
    """
    model, (rank, ranks) = ready.gemma.model, (group.rank(), group.size()) if group else (0, 1)
    model.eval()
    order = sorted(range(len(split.examples)), key=lambda r: len(split.examples[r].tokens))
    parts = [order[i : i + batch] for i in range(0, len(order), batch)]
    total = 0.0
    for rows in parts[rank::ranks]:
        found = batches.collate(split.examples, [[r] for r in rows])
        total += platform.scalar(summed_loss(ready.gemma.text, found, gradient=False))
    if ranks > 1:
        total = platform.scalar(mx.distributed.all_sum(mx.array(total), group=group))
    mx.clear_cache()  # of shapes that training does not have
    if not math.isfinite(total):
        what = f"the loss of the {len(split.examples)} rows from {split.where[0]} on is not finite"
        raise UserError(what, fix="look at these rows; if it was finite before training, lower train.lr")
    return total / split.targets
