"""One update: gradients of micro-batches, weighted by supervised tokens, clipped, guarded, applied.

batch 8 x accumulate 1, batch 1 x accumulate 8 and 4 x 1 on two machines give the same update, because losses are summed
and divided once by all targets (a mean of means, as mlx-lm takes it, weights short answers more).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from mlx_gemma import platform
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.forward import Layout
from mlx_gemma.gemma4.template import Example
from mlx_gemma.platform import scalar
from mlx_gemma.recipe import TrainSection
from mlx_gemma.training.batches import Batch, collate
from mlx_gemma.training.loss import summed_loss

MOST_SHAPES = 128  # compiled programs held; hundreds exhaust Metal's resources in a long run (unsloth-zoo 918)
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


def optimizer(train: TrainSection) -> Any:
    """mlx's optimiser of the recipe's name; for LoRA+ (arXiv 2402.12354) one for lora_b and one for the rest."""

    lr, decay = train.lr, train.weight_decay

    def one() -> Any:
        match train.optimizer:
            case "adamw":
                return optim.AdamW(lr, weight_decay=decay, bias_correction=True)
            case "adam":
                return optim.Adam(lr, bias_correction=True)
            case "adafactor":
                return optim.Adafactor(lr, relative_step=False, scale_parameter=False, weight_decay=decay)
            case "lion":
                return optim.Lion(lr, weight_decay=decay)
            case "muon":
                return optim.Muon(lr, weight_decay=decay)
        return optim.SGD(lr, momentum=0.9, weight_decay=decay)

    if train.lora_plus == 1:
        return one()
    return optim.MultiOptimizer([one(), one()], [lambda name, _: name.endswith("lora_b")])


def dropout_key(seed: int, step: int, number: int) -> mx.array:
    """The key of an update's micro-batch, a function of its arguments alone: no random state is to be kept."""
    drawn = np.random.SeedSequence([seed, step, number]).generate_state(1, np.uint64)
    key: mx.array = mx.random.key(int(drawn[0]))
    return key


class Updater:
    """Loss, gradient and optimiser of a model's trainable parameters.

    Attributes:
        parameters: the trained tensors, float32; the model has them too.
        optimizer: mlx's, with its state.
        step: updates so far, skipped ones too.
        failures: non-finite updates in a row up to now.
    """

    def __init__(
        self,
        model: nn.Module,
        text: Any,
        train: TrainSection,
        where: Callable[[int], str],
        examples: Sequence[Example] = (),
        group: Any = None,
        compiled: bool | None = None,
    ) -> None:
        """
        Args:
            where: what to call an example in a message.
            examples: if given (several machines need them), those to blame for a non-finite update are found among
                its rows.
            group: mx.distributed's, of machines that train together.
            compiled: whether to compile the gradient for each shape; None: not on a CPU, where it gains nothing.
        """
        self.model, self.train, self.where, self.examples, self.group = model, train, where, examples, group
        self.parameters: Any = model.trainable_parameters()
        self.optimizer = optimizer(train)
        self.optimizer.init(self.parameters)
        self.step = self.failures = 0

        def loss(parameters: Any, key: mx.array, *arrays: mx.array) -> mx.array:
            model.update(parameters)
            batch = Batch(Layout(*arrays[:-2]), arrays[-2], arrays[-1], rows=(), targets=0)
            return summed_loss(text, batch, checkpoint=train.checkpointing, key=key)

        self._plain = mx.value_and_grad(loss)
        self._compiled = platform.compiles() if compiled is None else compiled
        self._gradient = mx.compile(self._plain) if self._compiled else self._plain
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()

    def gradient(self, batch: Batch, number: int = 0) -> tuple[mx.array, Any]:
        """Summed loss of a batch and its gradient; `number` is the micro-batch's in the update."""
        if self._compiled:
            shape = tuple(a.shape for a in batch.arrays)
            self._shapes.add(shape)
            if len(self._shapes) > MOST_SHAPES:
                self._shapes = {shape}
                self._gradient = mx.compile(self._plain)  # and the old one's programs are let go
        try:
            key = dropout_key(self.train.seed, self.step, number)
            value, grads = self._gradient(self.parameters, key, *batch.arrays)
            mx.eval(value, grads)
        finally:
            self.model.update(self.parameters)  # where tracing left its own
        return value, grads

    def __call__(self, batches: list[Batch], rate: float) -> Update:
        """Train on an update's micro-batches (of several machines: on this one's).

        Raises:
            UserError: after `PATIENCE` non-finite updates in a row, naming the rows of the last.
        """
        rank, ranks = (self.group.rank(), self.group.size()) if self.group else (0, 1)
        total = mx.array(0.0)
        grads = None
        for i, batch in enumerate(batches):
            part, g = self.gradient(batch, rank + i * ranks)
            total = total + part
            grads = g if grads is None else tree_map(mx.add, grads, g)
            mx.eval(total, grads)
        if grads is None:
            grads = tree_map(mx.zeros_like, self.parameters)
        targets, tokens = sum(b.targets for b in batches), sum(b.layout.tokens.size for b in batches)
        if ranks > 1:
            grads = tree_map(lambda g: g * ranks, nn.utils.average_gradients(grads, self.group))
            total = mx.distributed.all_sum(total, group=self.group)
            targets, tokens = (
                int(scalar(mx.distributed.all_sum(mx.array(n), group=self.group))) for n in (targets, tokens)
            )
        grads = tree_map(lambda g: g / targets, grads)
        flat = dict(tree_flatten(grads))  # by name: a checkpoint's tensors come back in another order
        squares = [mx.square(flat[name].astype(mx.float32)).sum() for name in sorted(flat)]
        norm, loss = math.sqrt(scalar(mx.stack(squares).sum())), scalar(total) / targets
        if not math.isfinite(norm + loss):
            skipped = self._skipped(batches)
            self.step += 1
            return Update(loss, norm, targets, tokens, skipped)
        self.failures = 0
        scale = min(1.0, self.train.clip / norm) if norm > 0 else 1.0
        self._set_rate(rate)
        self.parameters = self.optimizer.apply_gradients(tree_map(lambda g: g * scale, grads), self.parameters)
        mx.eval(self.parameters, self.optimizer.state)
        self.model.update(self.parameters)
        self.step += 1
        return Update(loss, norm, targets, tokens, None)

    def _set_rate(self, rate: float) -> None:
        if self.train.lora_plus == 1:
            self.optimizer.learning_rate = rate
        else:
            for part, times in zip(self.optimizer.optimizers, (self.train.lora_plus, 1), strict=True):
                part.learning_rate = rate * times

    def _skipped(self, batches: list[Batch]) -> str:
        self.failures += 1
        rank, ranks = (self.group.rank(), self.group.size()) if self.group else (0, 1)
        guilty = [batch for i, batch in enumerate(batches) if self._is_bad(batch, rank + i * ranks)]
        rows = [r for batch in guilty for r in batch.rows]
        if self.examples:
            rows = [r for r in rows if self._is_bad(collate(self.examples, [[r]]), 0)] or rows
        rows = self._everywhere(rows) or self._everywhere([r for batch in batches for r in batch.rows])
        named = ", ".join(map(self.where, rows))
        if self.failures >= PATIENCE:
            raise UserError(
                f"{PATIENCE} updates in a row had a non-finite loss or gradient; the last held {named}",
                fix="lower train.lr, or look at these rows",
            )
        return named

    def _everywhere(self, rows: list[int]) -> list[int]:
        """These rows and the other machines'."""
        if not self.group or self.group.size() == 1:
            return rows
        mine = np.zeros(len(self.examples), np.int32)
        mine[rows] = 1
        return np.flatnonzero(np.array(mx.distributed.all_sum(mx.array(mine), group=self.group))).tolist()

    def _is_bad(self, batch: Batch, number: int) -> bool:
        value, grads = self.gradient(batch, number)
        sums = [value, *(g.sum() for _, g in tree_flatten(grads))]
        return not bool(mx.isfinite(mx.stack(sums)).all().item())
