"""A run's way through adapter space: its snapshots, how much each stands for, how the optimiser scaled gradients.

Every update counts for the snapshot nearest to it; a snapshot's weight is the sum of those updates' learning rates,
each times what clipping left of its gradient, divided by the supervised tokens of all rows. An update divides the
summed loss of its rows by their targets, and holds in the mean (its targets / all targets) of every row; so

    weight * <preconditioner * direction, -gradient of a row's summed loss>

is what the row moved the parameters along `direction` in the snapshot's span, in the mean over the order of the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.recipe import Recipe
from mlx_gemma.training import snapshots
from mlx_gemma.training.record import METRICS

EPS = 1e-8  # of mlx's Adam and AdamW, as training leaves it
AGAIN = "train again with blame.snapshots of 1 or more"


@dataclass(frozen=True)
class Point:
    """A snapshot. `parameters` and `preconditioner` are float32 by name; `weight` multiplies summed losses."""

    step: int
    weight: float
    parameters: dict[str, mx.array]
    preconditioner: dict[str, mx.array]


def trajectory(folder: Path, recipe: Recipe, targets: int) -> Iterator[Point]:
    """The points of a finished run, oldest first, up to the update whose adapter was kept. Read one at a time.

    The preconditioner is what AdamW multiplied gradients by, 1 / (sqrt(v) + eps) of the bias-corrected second moments
    v; 1 for other optimisers, whose own scaling is not followed; times train.lora_plus for lora_b. It is 0 where v is
    0: no update has moved such a parameter.

    Args:
        recipe: the run's.
        targets: supervised tokens of all training rows.

    Raises:
        UserError: the run is unfinished, kept no snapshots, or its files are damaged.
    """
    kept = int(run.read_manifest(folder)["result"]["kept"])
    paths = snapshots.found(folder)
    if not paths:
        raise UserError("this run kept no snapshots to find causes with", where=folder, fix=AGAIN)
    paths = [p for p in paths if int(p.stem) <= kept] or paths[:1]
    for path, weight in zip(paths, _weights(folder, recipe, kept, [int(p.stem) for p in paths]), strict=True):
        snapshot = snapshots.load(path)
        yield Point(snapshot.step, weight / targets, snapshot.parameters, _preconditioner(snapshot, recipe))


def _weights(folder: Path, recipe: Recipe, kept: int, steps: list[int]) -> list[float]:
    path = folder / METRICS
    weights = [0.0] * len(steps)
    try:
        lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
        for line in lines[1 : kept + 1]:
            if line["skipped"] is None:
                clipped = min(1.0, recipe.train.clip / line["norm"]) if line["norm"] else 1.0
                nearest = min(range(len(steps)), key=lambda i: abs(steps[i] - line["step"]))
                weights[nearest] += line["rate"] * clipped
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"unreadable metrics: {e!r}", where=path, fix="train again") from e
    return weights


def _preconditioner(snapshot: snapshots.Snapshot, recipe: Recipe) -> dict[str, mx.array]:
    found = {}
    for name, value in snapshot.parameters.items():
        times = recipe.train.lora_plus if name.endswith("lora_b") else 1.0
        if snapshot.moments is None:
            found[name] = mx.full(value.shape, times)
        else:
            v = snapshot.moments[name]
            found[name] = mx.where(v > 0, times / (mx.sqrt(v) + EPS), 0.0)
    return found
