"""The loss curve as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mlx_gemma import run


class Point(Protocol):
    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def valid_loss(self) -> float | None: ...


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Exponential moving average, corrected for its start and for values that are not finite."""
    out, mean, seen = [], 0.0, 0.0
    for value in values:
        known = math.isfinite(value)
        mean = weight * mean + (1 - weight) * (value if known else 0.0)
        seen = weight * seen + (1 - weight) * known
        out.append(mean / seen if seen else math.nan)
    return out


def plot_losses(history: Sequence[Point], path: Path) -> None:
    """Training loss (each update, and smoothed) and validation loss over updates, as PNG, written whole."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    updates = [p for p in history if p.step > 0]  # line 0 has a validation loss alone
    steps, losses = [p.step for p in updates], [p.loss for p in updates]
    axes.plot(steps, losses, color="#9db8d9", linewidth=0.8, label="training, each update")
    axes.plot(steps, smoothed(losses), color="#1f4e8c", linewidth=1.8, label="training, smoothed")
    measured = [(p.step, p.valid_loss) for p in history if p.valid_loss is not None]
    if measured:
        axes.plot(*zip(*measured, strict=True), color="#c8501e", marker="o", markersize=4, label="validation")
    axes.set(xlabel="update", ylabel="loss (nats per supervised token)")
    axes.grid(alpha=0.3)
    axes.legend()
    with run.whole(path) as part:
        figure.savefig(part, format="png", dpi=120)
