"""A run in memory: what changes from update to update, how it is saved, and how it is taken up again."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_gemma import platform, run
from mlx_gemma.digest import digest_json
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.recipe import Resolved
from mlx_gemma.training import batches, checkpoint, snapshots
from mlx_gemma.training.diagnose import diagnose
from mlx_gemma.training.optimiser import Updater, learning_rate
from mlx_gemma.training.plan import steps_of
from mlx_gemma.training.plot import plot_losses
from mlx_gemma.training.prepare import Prepared, Split
from mlx_gemma.training.record import METRICS, Progress, made_from, manifest, read_metrics
from mlx_gemma.training.validation import Best, mean_loss


class Trainer:
    """The updater, the position in the run, and what has been measured."""

    def __init__(self, ready: Prepared, resolved: Resolved, group: Any) -> None:
        self.ready, self.resolved, self.recipe, self.group = ready, resolved, resolved.recipe, group
        self.steps = steps_of(resolved, ready.train, group.size())
        self.snapshots = snapshots.steps_kept(self.recipe, self.steps)
        self.updater = Updater(
            ready.gemma.model,
            ready.gemma.text,
            self.recipe.train,
            lambda row: ready.train.where[row],
            ready.train.examples,
            group,
        )
        self.made_from = made_from(resolved, ready) | {"number of machines": group.size()}
        self.history: list[Progress] = []
        self.best = Best()
        self.regression: dict[str, float] | None = None

    @property
    def step(self) -> int:
        """Updates so far."""
        return self.updater.step

    def agree(self, folder: Path) -> None:
        """Wait for the other machines, and see that all begin with the same.

        Raises:
            UserError: they go on from different updates, or one has another recipe, data or base.
        """
        if self.group.size() == 1:
            return
        mine = mx.array([[self.step, int(digest_json(self.made_from)[:7], 16)]], mx.int32)
        every: list[Any] = mx.distributed.all_gather(mine, group=self.group).tolist()  # type: ignore[assignment]
        steps, digests = zip(*every, strict=True)
        if len(set(steps)) > 1:
            fix = f"give all of them the same {run.CHECKPOINTS}/, copied from the first"
            raise UserError(f"the machines go on from different updates: {list(steps)}", where=folder, fix=fix)
        other = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if other:
            fix = "give all of them the same recipe and files, at the same paths"
            raise UserError(f"machine {other[0]} has another recipe, data or base than machine 0", fix=fix)

    def anywhere(self, flag: bool) -> bool:
        """Whether it is so on any machine."""
        if self.group.size() == 1:
            return flag
        return platform.scalar(mx.distributed.all_sum(mx.array(int(flag)), group=self.group)) > 0

    def go_on(self) -> Iterator[Progress]:
        """Line 0 of a new run, and every update that is still to be made."""
        t, model = self.recipe.train, self.ready.gemma.model
        mx.reset_peak_memory()
        if not self.history:
            self.regression = {"before": self.mean_loss(self.ready.regression)} if self.ready.regression else None
            self.history.append(Progress(0, self.steps, math.nan, self._validated()))
            yield self.history[0]
        stream = batches.stream(self.ready.train.examples, t, self.step, self.group.rank(), self.group.size())
        seconds = self.history[-1].seconds
        while self.step < self.steps and not self._exhausted():
            model.train()
            started = time.perf_counter()
            rate = learning_rate(t, self.step, self.steps)
            done = self.updater(next(stream), rate)
            took = time.perf_counter() - started
            seconds += took
            measured = self.step % self.recipe.validation.every == 0 or self.step == self.steps
            self.history.append(
                Progress(
                    step=self.step,
                    steps=self.steps,
                    loss=done.loss,
                    valid_loss=self._validated() if measured else None,
                    rate=rate,
                    norm=done.norm,
                    targets=done.targets,
                    tokens=done.tokens,
                    tokens_per_second=done.tokens / took,
                    peak_memory_gb=platform.peak_memory_bytes() / 1e9,
                    seconds=seconds,
                    skipped=done.skipped,
                )
            )
            yield self.history[-1]

    def _validated(self) -> float | None:
        """The validation loss now, noted if it is the lowest."""
        if self.ready.valid is None:
            return None
        loss = self.mean_loss(self.ready.valid)
        if self.step and loss < self.best.loss:
            self.best = Best(loss, self.step)
        elif self.step:
            self.best.stale += 1
        return loss

    def _exhausted(self) -> bool:
        patience = self.recipe.validation.patience
        return patience is not None and self.best.stale >= patience

    def mean_loss(self, split: Split) -> float:
        """Mean negative log-probability over all targets of a split, weighted by token, dropout off."""
        return mean_loss(self.ready, split, self.recipe.train.batch, self.group)

    def save(self, folder: Path, now: bool) -> None:
        """After an update: a snapshot and a checkpoint if it is time for one, the adapter if it is the best one yet."""
        every, keep = self.recipe.checkpoint.every, self.recipe.checkpoint.keep
        try:
            if self.step in self.snapshots:
                updater = self.updater
                snapshots.save(folder, self.step, updater.parameters, updater.optimizer, self.recipe.train.optimizer)
            if self.step and self.best.step == self.step and self.recipe.validation.keep == "best":
                with run.whole(folder / run.BEST) as part:
                    mx.save_safetensors(str(part), dict(tree_flatten(self.updater.parameters)))
            ended = self.step == self.steps or self._exhausted()  # should the disk be full when the results are written
            if self.step and (now or ended or self.step % every == 0):
                updater = self.updater
                best = folder / run.BEST if self.best.step and self.recipe.validation.keep == "best" else None
                state = self._state()
                run.sync(folder / METRICS)  # no checkpoint without its lines
                checkpoint.save(folder, self.step, updater.parameters, updater.optimizer.state, state, keep, best)
        except (OSError, RuntimeError) as e:  # mlx tells a full disk by the second
            fix = "free space and add --resume to go on from the checkpoint before"
            raise UserError(f"update {self.step} cannot be saved: {e}", where=folder, fix=fix) from e

    def check_trained(self, folder: Path) -> None:
        """Whether any update was applied.

        Raises:
            UserError: all were skipped, so there is nothing to keep.
        """
        if self.history[-1].step and all(p.skipped for p in self.history[1:]):
            what = f"no update had a finite loss and gradient; the last held {self.history[-1].skipped}"
            raise UserError(what, where=folder, fix="lower train.lr, or look at these rows")

    def _state(self) -> dict[str, Any]:
        best = asdict(self.best) | {"loss": None if math.isinf(self.best.loss) else self.best.loss}
        numbers = {"failures": self.updater.failures, "best": best, "regression": self.regression}
        return numbers | {"made_from": self.made_from}

    def restore(self, path: Path, writes: bool = True) -> None:
        """Take over a checkpoint, and cut the run folder back to it.

        Raises:
            UserError: it is damaged, or of another recipe, data, base, or number of machines.
        """
        parameters, optimizer, state = checkpoint.load(path)
        checkpoint.refuse_change(path, state["made_from"], self.made_from)
        updater, best = self.updater, state["best"]
        updater.parameters, updater.optimizer.state = parameters, optimizer
        updater.model.update(parameters)
        updater.step, updater.failures, self.regression = state["step"], state["failures"], state["regression"]
        self.best = Best(**(best | {"loss": math.inf if best["loss"] is None else best["loss"]}))
        self.history = [Progress(0, self.steps, math.nan, None)]
        if writes:
            folder = path.parent.parent
            self.history = read_metrics(folder, self.step)
            if (path / run.BEST).exists():  # the folder may hold a later one
                with run.whole(folder / run.BEST) as part:
                    shutil.copyfile(path / run.BEST, part)

    def finish(self, folder: Path, writes: bool) -> None:
        """Put the adapter that is kept into the model, and write it with everything that explains it."""
        if not writes:
            return
        kept, ready, history = self.step, self.ready, self.history
        if self.recipe.validation.keep == "best" and 0 < self.best.step < self.step:
            kept = self.best.step
            ready.gemma.model.load_weights(str(folder / run.BEST), strict=False)
        if ready.regression and self.regression:
            self.regression["after"] = mean_loss(ready, ready.regression, self.recipe.train.batch)
        result = {
            "kept": kept,
            "valid_loss": next((p.valid_loss for p in history if p.step == kept), None),
            "valid_loss_before": history[0].valid_loss,
            "regression": self.regression,
        }
        diagnosis = diagnose(history[1:], history[0].valid_loss)
        lora.save_adapter(ready.gemma.model, folder, ready.spec, ready.gemma.base)
        plot_losses(history, folder / "loss.png")
        run.write_json(folder / run.MANIFEST, manifest(self.resolved, ready, history, diagnosis, result))
        run.forget(folder)
