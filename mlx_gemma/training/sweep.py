"""A grid of runs (recipe/grid.py), every one in a process and a folder of its own.

A process each, because MLX's peak memory is the process's, and what one run leaves in the cache is no part of the next.
A sweep that is called again runs only what is missing: finished runs stay, unfinished ones go on from their checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_gemma import run
from mlx_gemma.errors import Interrupted, UserError
from mlx_gemma.recipe import read_recipe
from mlx_gemma.recipe.grid import Trial

RESULT = "sweep.json"
LORA = [sys.executable, "-P", "-c", "from mlx_gemma.cli import main; main()", "lora"]


@dataclass(frozen=True)
class Row:
    """One line of the table. What a run did not measure is None; `error` is there where it failed."""

    values: dict[str, str]
    folder: str
    valid_loss: float | None = None  # of the adapter that was kept, nats a supervised token
    regression: dict[str, float] | None = None  # before, after: nats a supervised token
    peak_memory_gb: float | None = None
    seconds: float | None = None  # in updates
    diagnosis: str | None = None
    error: str | None = None


def sweep(root: Path, trials: Sequence[Trial], tell: Callable[[str], None]) -> list[Row]:
    """Run what is missing, one after another, and write sweep.json after each.

    Args:
        tell: takes a line when a run starts and one when it has ended.

    Raises:
        Interrupted: Ctrl-C.
        UserError: the folder cannot be written. A run that fails is a row with its error.
    """
    rows: list[Row] = []
    for number, trial in enumerate(trials, 1):
        name = ", ".join(f"{k}={v}" for k, v in trial.values.items())
        with run.disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            rows.append(_row(trial, lambda what, n=number, of=name: tell(f"{n}/{len(trials)} {of}: {what}")))  # type: ignore[misc]
            run.write_json(root / RESULT, {"rows": [asdict(row) for row in rows], "best": best(rows)})
    return rows


def best(rows: Sequence[Row]) -> int | None:
    """Which row has the lowest validation loss; None where none was measured."""
    known = [(row.valid_loss, i) for i, row in enumerate(rows) if row.valid_loss is not None]
    return min(known)[1] if known else None


def _row(trial: Trial, tell: Callable[[str], None]) -> Row:
    values, folder = trial.values, str(trial.folder)
    try:
        if (trial.folder / run.MANIFEST).exists():
            done = read_recipe(trial.folder / run.RECIPE).recipe
            if done.model_copy(update={"output": ""}) != trial.resolved.recipe.model_copy(update={"output": ""}):
                fix = "remove it, or choose another output"
                raise UserError("holds a finished run of another recipe", where=trial.folder, fix=fix)
            tell("finished before")
        else:
            _train(trial, tell)
        return finished(values, trial.folder)
    except Interrupted:
        raise
    except UserError as e:
        tell(f"failed: {e}")
        return Row(values, folder, error=str(e))


def _train(trial: Trial, tell: Callable[[str], None]) -> None:
    """Run `mlx-gemma lora` in a fresh process, its output in a file beside the run folder."""
    log = trial.folder.with_name(trial.folder.name + ".log")
    resume = ["--resume"] if (trial.folder / run.RECIPE).exists() else []
    sets = [word for override in trial.overrides for word in ("--set", override)]
    tell(f"{'goes on' if resume else 'starts'}, output in {log}")
    started = time.perf_counter()
    with log.open("w", encoding="utf8") as file:
        command = [*LORA, str(trial.recipe), *sets, *resume]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        status = _wait(child, tell)
    if status:
        lines = log.read_text(encoding="utf8", errors="replace").strip().splitlines()
        how = f"killed by signal {-status}" if status < 0 else f"status {status}"
        said = [line.removeprefix("mlx-gemma: ") for line in lines if line.startswith("mlx-gemma: ")]
        raise UserError((said or [f"{how}, see {log}"])[-1])
    tell(f"finished in {time.perf_counter() - started:.0f} s")


def _wait(child: subprocess.Popen[bytes], tell: Callable[[str], None]) -> int:
    """The child's exit status. After Ctrl-C it has as long as it needs to save its update; a second one ends it.

    Raises:
        Interrupted: Ctrl-C.
    """
    try:
        return child.wait()
    except KeyboardInterrupt:
        tell("stopping, its update is saved first; Ctrl-C again stops at once")
        try:
            if not _at_a_terminal():
                child.send_signal(signal.SIGINT)
            child.wait()
        except KeyboardInterrupt:
            child.kill()
            child.wait()
        raise Interrupted("sweep stopped", fix="the same command goes on") from None


def _at_a_terminal() -> bool:
    """Whether we are a terminal's foreground, whose Ctrl-C goes to every process of the group: the child had it too."""
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def finished(values: dict[str, str], folder: Path) -> Row:
    """The row of a finished run, from its manifest. The loss is that of the adapter that is in the folder: the lowest
    measurement may be the untrained model's, or of an adapter that validation.keep=last threw away.

    Raises:
        UserError: it is missing or damaged.
    """
    manifest = run.read_manifest(folder)
    try:
        result: dict[str, Any] = manifest["result"]
        return Row(
            values,
            str(folder),
            valid_loss=result["valid_loss"],
            regression=result["regression"],
            peak_memory_gb=result["peak_memory_gb"],
            seconds=result["seconds"],
            diagnosis=result["diagnosis"]["kind"],
        )
    except (KeyError, TypeError) as e:
        where = folder / run.MANIFEST
        raise UserError(f"unreadable manifest: {e!r}", where=where, fix="remove the folder and sweep again") from e
