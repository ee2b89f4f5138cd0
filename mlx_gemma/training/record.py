"""What a run writes down: its recipe, a line of metrics for every update, and the manifest."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_gemma import __version__, digest, platform, run
from mlx_gemma.errors import UserError
from mlx_gemma.recipe import Resolved
from mlx_gemma.recipe.read import flatten
from mlx_gemma.training.diagnose import Diagnosis
from mlx_gemma.training.prepare import Prepared

METRICS = "metrics.jsonl"
# Keys that may change while a run is interrupted: they change no number of it.
FREE = ("output", "report_to", "checkpoint.every", "checkpoint.keep")


@dataclass(frozen=True)
class Progress:
    """One line of metrics.jsonl. `valid_loss` is there where it was measured; times are of updates alone.

    Line 0 stands before the first update and holds the validation loss alone.
    """

    step: int
    steps: int
    loss: float
    valid_loss: float | None
    rate: float = 0.0
    norm: float = 0.0
    targets: int = 0
    tokens: int = 0
    tokens_per_second: float = 0.0
    peak_memory_gb: float = 0.0
    seconds: float = 0.0
    skipped: str | None = None  # the rows of an update that was not applied, its loss or gradient not being finite

    @classmethod
    def of(cls, line: dict[str, Any]) -> Progress:
        values: dict[str, Any] = {k: math.nan if v is None and k in ("loss", "norm") else v for k, v in line.items()}
        return cls(**values)

    def line(self) -> str:
        values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}
        return json.dumps(values) + "\n"  # NaN and infinity as null: JSON has neither


def read_metrics(folder: Path, last: int) -> list[Progress]:
    """The lines of an interrupted run up to update `last`, to which the file is cut back.

    Raises:
        UserError: a line is missing or damaged.
    """
    path = folder / METRICS
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()[: last + 1]]
        history = [Progress.of(line) for line in lines]
        if [p.step for p in history] != list(range(last + 1)):
            raise ValueError(f"updates 0 to {last} are not all there")
    except (OSError, ValueError, TypeError) as e:
        raise UserError(f"unreadable metrics: {e}", where=path, fix="remove the run folder and start again") from e
    run.write_text(path, "".join(p.line() for p in history))
    return history


def recent_loss(history: Sequence[Progress]) -> float:
    """Mean of the last ten updates' losses; one alone says little."""
    losses = [p.loss for p in history[-10:] if math.isfinite(p.loss)]
    return sum(losses) / max(1, len(losses))


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


def made_from(resolved: Resolved, ready: Prepared) -> dict[str, Any]:
    """What every number of a run depends on: the recipe's keys, and digests of data, base and template."""
    recipe = flatten(resolved.recipe.model_dump(mode="json"))
    splits = {"train": ready.train, "valid": ready.valid, "regression": ready.regression}
    return {
        "recipe": {k: v for k, v in recipe.items() if k not in FREE},
        "data": {name: split.digest for name, split in splits.items() if split},
        "base": ready.gemma.checkpoint.digest,
        "template": ready.gemma.template.digest,
    }


def manifest(
    resolved: Resolved, ready: Prepared, history: Sequence[Progress], diagnosis: Diagnosis, result: dict[str, Any]
) -> dict[str, Any]:
    """manifest.json. `history` begins with line 0; `result` is what the loop knows beside it."""
    checkpoint, last = ready.gemma.checkpoint, history[-1]
    made = made_from(resolved, ready)
    return {
        "mlx_gemma": __version__,
        "base": {"name": checkpoint.name, "revision": checkpoint.revision, "digest": checkpoint.digest},
        "template": made["template"],
        "data": {"valid": None} | made["data"],
        "recipe": digest.digest_json(resolved.recipe.model_dump(mode="json")),
        "rows": {"train": len(ready.train.examples), "valid": len(ready.valid.examples) if ready.valid else 0},
        "adapter": {"parameters": ready.attached.parameters, "modules": ready.attached.modules},
        "result": {
            "steps": last.step,
            "skipped": sum(p.skipped is not None for p in history),
            "loss": recent_loss(history[1:]),
            **result,
            "diagnosis": asdict(diagnosis),
            "seconds": last.seconds,
            "peak_memory_gb": max(p.peak_memory_gb for p in history),
        },
        "machine": platform.describe(),
    }
