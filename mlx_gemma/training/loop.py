"""`train(recipe)`: from a recipe to a finished run folder.

The loop itself is in `_updates`; everything else prepares it or writes down what it did.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_gemma import __version__, digest, platform, run
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.recipe import Resolved
from mlx_gemma.training import batches
from mlx_gemma.training.loss import summed_loss
from mlx_gemma.training.optimiser import Updater, learning_rate
from mlx_gemma.training.plot import plot_losses
from mlx_gemma.training.prepare import Prepared, Split, prepare


@dataclass(frozen=True)
class Progress:
    """One line of metrics.jsonl. `valid_loss` is there where it was measured; times are of updates alone."""

    step: int
    steps: int
    loss: float
    valid_loss: float | None
    rate: float
    norm: float
    targets: int
    tokens: int
    tokens_per_second: float
    peak_memory_gb: float
    seconds: float
    skipped: str | None  # the rows of an update that was not applied, its loss or gradient not being finite


def train(
    resolved: Resolved, prepared: Prepared | None = None, report: Callable[[Progress], None] = lambda p: None
) -> Path:
    """Train an adapter and write its run folder.

    Args:
        resolved: the recipe with its sources.
        prepared: what `prepare` returned, if the caller has looked at it already.
        report: called after every update.

    Returns:
        The run folder.

    Raises:
        UserError: whatever is wrong with recipe, data, model, adapter or disk. Nothing half-written stays that could be
            taken for a finished run: the manifest is written last.
    """
    recipe = resolved.recipe
    folder = Path(recipe.output).expanduser()
    run.check(folder)
    ready = prepared or prepare(recipe)
    run.start(folder, recipe_text(resolved))
    with run.disk_errors(folder):
        run.write_json(folder / "audit.json", ready.report.as_json())
        history = []
        with (folder / "metrics.jsonl").open("w", encoding="utf8") as metrics:
            for progress in _updates(ready, resolved):
                metrics.write(json.dumps(_finite(asdict(progress))) + "\n")
                metrics.flush()
                history.append(progress)
                report(progress)
        if history[-1].skipped:
            raise UserError("training diverged: the last update was not finite", where=folder, fix="lower train.lr")
        base = {"name": ready.gemma.checkpoint.name, "revision": ready.gemma.checkpoint.revision}
        lora.save_adapter(ready.gemma.model, folder, ready.spec, base)
        plot_losses(history, folder / "loss.png")
        run.write_json(folder / run.MANIFEST, manifest(resolved, ready, history))
    ready.gemma.model.eval()
    return folder


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    """NaN and infinity as null: JSON has neither."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}


def recent_loss(history: list[Progress]) -> float:
    """Mean of the last ten updates' losses; one alone says little."""
    losses = [p.loss for p in history[-10:] if math.isfinite(p.loss)]
    return sum(losses) / max(1, len(losses))


def steps_of(resolved: Resolved, rows: int) -> int:
    """How many updates a recipe means for so many rows."""
    t = resolved.recipe.train
    if t.steps is not None:
        return t.steps
    assert t.epochs is not None
    return max(1, math.ceil(t.epochs * batches.updates_per_epoch(rows, t.batch, t.accumulate)))


def _updates(ready: Prepared, resolved: Resolved) -> Iterator[Progress]:
    t, every = resolved.recipe.train, resolved.recipe.validation.every
    model, text = ready.gemma.model, ready.gemma.text
    steps = steps_of(resolved, len(ready.train.examples))
    stream = batches.endless(ready.train.examples, t.batch, t.accumulate, t.seed)
    update = Updater(model, text, t, lambda row: ready.train.where[row])
    mx.reset_peak_memory()
    seconds = 0.0
    for step in range(steps):
        model.train()
        started = time.perf_counter()
        rate = learning_rate(t, step, steps)
        done = update(next(stream), rate)
        took = time.perf_counter() - started
        seconds += took
        measure = ready.valid is not None and ((step + 1) % every == 0 or step + 1 == steps)
        yield Progress(
            step=step + 1,
            steps=steps,
            loss=done.loss,
            valid_loss=mean_loss(ready, ready.valid, t.batch) if measure and ready.valid else None,
            rate=rate,
            norm=done.norm,
            targets=done.targets,
            tokens=done.tokens,
            tokens_per_second=done.tokens / took,
            peak_memory_gb=platform.peak_memory_bytes() / 1e9,
            seconds=seconds,
            skipped=done.skipped,
        )


def mean_loss(ready: Prepared, split: Split, batch: int) -> float:
    """Mean negative log-probability over all targets of a split, weighted by token, dropout off."""
    model = ready.gemma.model
    model.eval()
    order = sorted(range(len(split.examples)), key=lambda r: len(split.examples[r].tokens))
    total = 0.0
    for i in range(0, len(order), batch):
        total += platform.scalar(
            summed_loss(ready.gemma.text, batches.collate(split.examples, order[i : i + batch]), gradient=False)
        )
    return total / split.targets


def recipe_text(resolved: Resolved) -> str:
    """The resolved recipe as YAML that can be run again, each key's source behind it."""
    lines, section = [], ""
    for key, value, source in resolved.rows():
        *parents, last = key.split(".")
        if parents and parents[0] != section:
            lines.append(f"{parents[0]}:")
        section = parents[0] if parents else ""
        lines.append(f"{'  ' * len(parents)}{last}: {value}  # {source}")
    return "\n".join(lines) + "\n"


def manifest(resolved: Resolved, ready: Prepared, history: list[Progress]) -> dict[str, object]:
    checkpoint = ready.gemma.checkpoint
    last = history[-1]
    return {
        "mlx_gemma": __version__,
        "base": {"name": checkpoint.name, "revision": checkpoint.revision, "digest": checkpoint.digest},
        "template": ready.gemma.template.digest,
        "data": {"train": ready.train.digest, "valid": ready.valid.digest if ready.valid else None},
        "recipe": digest.digest_json(resolved.recipe.model_dump(mode="json")),
        "rows": {"train": len(ready.train.examples), "valid": len(ready.valid.examples) if ready.valid else 0},
        "adapter": {"parameters": ready.attached.parameters, "modules": ready.attached.modules},
        "result": {
            "steps": last.step,
            "skipped": sum(p.skipped is not None for p in history),
            "loss": recent_loss(history),
            "valid_loss": next((p.valid_loss for p in reversed(history) if p.valid_loss is not None), None),
            "seconds": last.seconds,
            "peak_memory_gb": last.peak_memory_gb,
        },
        "machine": platform.describe(),
    }
