"""`train(recipe)`: from a recipe to a finished run folder, or on from where an interrupted one was saved.

Several machines run the same loop on their own share of every update's rows, and only the first of them writes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx_gemma import platform, run
from mlx_gemma.errors import Interrupted
from mlx_gemma.recipe import Resolved
from mlx_gemma.training import plan, trackers
from mlx_gemma.training.prepare import Prepared, prepare
from mlx_gemma.training.record import METRICS, Progress, recipe_text
from mlx_gemma.training.trainer import Trainer

TRACKED = ("loss", "valid_loss", "rate", "norm", "tokens_per_second", "peak_memory_gb")


def train(
    resolved: Resolved,
    prepared: Prepared | None = None,
    report: Callable[[Progress], None] = lambda p: None,
    *,
    resume: bool = False,
) -> Path:
    """Train an adapter and write its run folder.

    Args:
        resolved: the recipe with its sources.
        prepared: what `prepare` returned, if the caller has looked at it already.
        report: called with line 0 (see `Progress`) and after every update.
        resume: go on from the newest checkpoint of an unfinished run in the recipe's output; where there is none, start
            anew. On the same machine the result is that of an uninterrupted run, to the bit.

    Returns:
        The run folder.

    Raises:
        UserError: whatever is wrong with recipe, data, model, adapter, memory or disk; a checkpoint that is damaged or
            of another recipe, data or base. Nothing half-written stays that could be taken for a finished run: the
            manifest is written last.
        Interrupted: Ctrl-C, once the current update is saved.
    """
    recipe = resolved.recipe
    group = platform.machines()
    folder, writes = Path(recipe.output).expanduser(), group.rank() == 0
    run.check(folder, resume=resume)
    trackers.require(recipe.report_to)
    ready = prepared or prepare(recipe)
    platform.wire_memory()
    found = run.checkpoints(folder) if resume else []
    plan.check_memory(plan.plan(resolved, ready, group.size()), resolved.recipe)
    trainer = Trainer(ready, resolved, group)
    with run.disk_errors(folder):
        if found:
            trainer.restore(found[-1], writes)
        trainer.agree(folder)
        if writes and not found:
            run.start(folder, recipe_text(resolved))
    with run.disk_errors(folder), _tracked(resolved, folder, writes) as tracked, _stopping() as stopped:
        if writes and not found:
            run.write_json(folder / "audit.json", ready.report.as_json())
        for progress in trainer.go_on():
            stop = trainer.anywhere(stopped())
            if writes:
                with (folder / METRICS).open("a", encoding="utf8") as metrics:
                    metrics.write(progress.line())
                tracked(progress)
                trainer.save(folder, stop)
            report(progress)
            if stop:
                trainer.anywhere(False)  # until the first has saved: a launcher ends all when one ends
                fix = "add --resume to go on" if writes else "see the first machine"
                raise Interrupted(f"stopped after update {trainer.step} of {trainer.steps}", where=folder, fix=fix)
        trainer.check_trained(folder)
        trainer.finish(folder, writes)
    ready.gemma.model.eval()
    return folder


@contextmanager
def _tracked(resolved: Resolved, folder: Path, writes: bool) -> Iterator[Callable[[Progress], None]]:
    config = {k: v for k, v, _ in resolved.rows()}
    tracker = trackers.tracker(resolved.recipe.report_to if writes else "none", "mlx-gemma", folder, config)
    try:
        yield lambda p: tracker.log(p.step, {name: getattr(p, name) for name in (TRACKED if p.step else TRACKED[1:2])})
    finally:
        tracker.finish()


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed: the update is finished and saved first. The second Ctrl-C stops at once."""
    pressed = False

    def press(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        os.write(
            2, b"\nstopping after this update, which is saved; Ctrl-C again stops at once\n"
        )  # print may be under way
        signal.signal(signal.SIGINT, before)

    try:
        before = signal.signal(signal.SIGINT, press)
    except ValueError:  # not in the main thread, which alone gets signals
        yield lambda: False
        return
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
