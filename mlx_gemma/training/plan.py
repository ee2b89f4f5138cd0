"""What a recipe will do, before it does it: rows, tokens, parameters, updates, and the memory it should take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_gemma import platform
from mlx_gemma.errors import UserError
from mlx_gemma.recipe import Resolved
from mlx_gemma.training.loop import steps_of
from mlx_gemma.training.memory import predicted_peak
from mlx_gemma.training.prepare import Prepared


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
        audit=ready.report.summary_lines(),
        steps=steps_of(resolved, ready.train),
        peak_bytes=predicted_peak(
            ready.gemma.text,
            recipe.train,
            recipe.adapter,
            ready.train.examples,
            ready.attached.parameters,
        ),
        memory_bytes=platform.memory_bytes(),
    )


def check_memory(planned: Plan) -> None:
    """Refuse a run that cannot fit.

    Raises:
        UserError: the predicted peak exceeds the machine's memory.
    """
    if planned.peak_bytes > planned.memory_bytes:
        raise UserError(
            f"needs about {planned.peak_bytes / 1e9:.1f} GB, this machine has {planned.memory_bytes / 1e9:.1f} GB",
            fix="set train.checkpointing=true, lower train.batch, or quantise the base (model.quantize=nf4)",
        )
