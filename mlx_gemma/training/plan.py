"""What a recipe will do, before it does it: rows, tokens, parameters, updates, and the memory it should take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_gemma import platform
from mlx_gemma.errors import UserError
from mlx_gemma.recipe import Recipe, Resolved
from mlx_gemma.training import batches
from mlx_gemma.training.memory import predicted_peak
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
    cut_elsewhere: int  # of the validation and regression rows
    dropped_elsewhere: int
    audit: list[str]
    steps: int
    peak_bytes: int
    memory_bytes: int


def plan(resolved: Resolved, ready: Prepared, machines: int = 1) -> Plan:
    """What the recipe means on so many machines that train together."""
    others = [split for split in (ready.valid, ready.regression) if split]
    lengths, recipe = ready.train.lengths, resolved.recipe
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
        cut_elsewhere=sum(split.cut for split in others),
        dropped_elsewhere=sum(split.dropped for split in others),
        audit=ready.report.summary_lines(),
        steps=steps_of(resolved, ready.train, machines),
        peak_bytes=predicted_peak(
            ready.gemma.text,
            recipe.train,
            recipe.adapter,
            ready.train.examples,
            ready.attached.parameters,
        ),
        memory_bytes=platform.memory_bytes(),
    )


def steps_of(resolved: Resolved, split: Split, ranks: int = 1) -> int:
    """How many updates a recipe means for these rows."""
    t = resolved.recipe.train
    if t.steps is not None:
        return t.steps
    assert t.epochs is not None
    return batches.updates_in(t.epochs, split.lengths.tolist(), t, ranks)


def check_memory(planned: Plan, recipe: Recipe) -> None:
    """Refuse a run that cannot fit.

    Raises:
        UserError: the predicted peak exceeds what MLX may use on this machine; says which levers are left.
    """
    if planned.peak_bytes > planned.memory_bytes:
        what = (
            f"needs about {planned.peak_bytes / 1e9:.1f} GB, and MLX may use {planned.memory_bytes / 1e9:.1f} GB here"
        )
        left = levers(recipe)
        raise UserError(what, fix=f"set {', '.join(left)}" if left else "take a smaller model or another machine")


def levers(recipe: Recipe) -> list[str]:
    """Keys that lower this recipe's memory and are not set yet, what saves most of E2B's first."""
    model, t, full = recipe.model, recipe.train, recipe.adapter.kind == "full"
    choices = (
        ("model.quantize_embeddings=affine4", model.quantize_embeddings == "none" and not full),
        ("model.quantize=affine4", model.quantize == "none" and not full),
        ("train.checkpointing=true", not t.checkpointing),
        (f"train.batch=1 with train.accumulate={t.batch * t.accumulate}", t.batch > 1),
        ("a smaller train.length", t.layout == "packed"),
    )
    return [text for text, possible in choices if possible]
