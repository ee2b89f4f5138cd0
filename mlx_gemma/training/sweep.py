"""A grid of runs: each value of each key with each of the others, every run in a process and a folder of its own.

A process each, because MLX's peak memory is the process's, and what one run leaves in the cache is no part of the next.
A sweep that is called again runs only what is missing: finished runs stay, unfinished ones go on from their checkpoint.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mlx_gemma import digest, run
from mlx_gemma.errors import RecipeError, UserError
from mlx_gemma.recipe import Resolved, read_recipe

RESULT = "sweep.json"
LORA = [sys.executable, "-P", "-c", "from mlx_gemma.cli import main; main()", "lora"]
LONGEST = 120  # characters of a folder's name; file systems allow 255 bytes


@dataclass(frozen=True)
class Trial:
    """One point of the grid: what is set there, by key, and where its run goes."""

    values: dict[str, str]
    folder: Path
    recipe: Path
    overrides: tuple[str, ...]
    resolved: Resolved


@dataclass(frozen=True)
class Row:
    """One line of the table. What a run did not measure is None; `error` is there where it failed."""

    values: dict[str, str]
    folder: str
    valid_loss: float | None = None  # the lowest of the run, nats a supervised token
    regression: dict[str, float] | None = None  # before, after: nats a supervised token
    peak_memory_gb: float | None = None
    seconds: float | None = None  # in updates
    diagnosis: str | None = None
    error: str | None = None


def split_values(text: str) -> list[str]:
    """`8,16,32` to its values. Brackets, braces and quotes hold together: `[q_proj, k_proj],[v_proj]` is two."""
    values, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and not values[-1].strip():  # elsewhere it is an apostrophe
            quote = char
        depth += 0 if quote else (char in "[{") - (char in "]}")
        if char == "," and depth == 0 and not quote:
            values.append("")
        else:
            values[-1] += char
    return [value.strip() for value in values]


def grid(recipe: Path, sets: Sequence[str]) -> tuple[Path, list[Trial]]:
    """The sweep's folder and its trials, every recipe among them checked.

    Args:
        recipe: a YAML file; its output, or `output=FOLDER` in `sets`, is the folder that the runs' folders lie in.
        sets: `section.key=value,value,…`. The last key varies fastest.

    Raises:
        RecipeError: a key given twice, an empty or repeated value, or a recipe that is not right.
        UserError: the sweep's folder is a run's.
    """
    choices: dict[str, list[str]] = {}
    for text in sets:
        key, equals, values = (part.strip() for part in text.partition("="))
        choice = split_values(values)
        if not equals or "" in choice or len(set(choice)) < len(choice):
            fix = "write --set adapter.rank=8,16,32, and null for none"
            raise RecipeError(f"--set {text} has no values, an empty one, or one twice", where="--set", fix=fix)
        if key in choices:
            raise RecipeError(f"{key} is given twice", where="--set", fix="put all of its values behind one --set")
        choices[key] = choice
    output = choices.pop("output", [read_recipe(recipe).recipe.output])
    if len(output) > 1:
        raise RecipeError("a sweep has one output", where="--set", fix="give one folder; the runs' lie in it")
    root = Path(output[0]).expanduser()
    if (root / run.MANIFEST).exists() or (root / run.RECIPE).exists():
        fix = "choose another folder for the sweep (--set output=…)"
        raise UserError("holds a run, and a sweep's folder holds folders of runs", where=root, fix=fix)
    trials = []
    for point in product(*choices.values()):
        named = dict(zip(choices, point, strict=True))
        folder = root / folder_name(named)
        overrides = (*(f"{k}={v}" for k, v in named.items()), f"output={json.dumps(str(folder))}")
        trials.append(Trial(named, folder, recipe, overrides, read_recipe(recipe, overrides)))
    return root, trials


def folder_name(values: dict[str, str]) -> str:
    """`adapter.rank=8,train.lr=1e-4`; where that is no plain or short name, cut, with a digest behind it."""
    name = ",".join(f"{k}={v}" for k, v in values.items()) or "recipe"
    plain = re.sub(r"[^\w.,=+-]+", "_", name)
    if plain == name and len(name) <= LONGEST:
        return name
    return f"{plain[: LONGEST - 9]}-{digest.digest_json(name)[:8]}"


def sweep(root: Path, trials: Sequence[Trial], tell: Callable[[str], None]) -> list[Row]:
    """Run what is missing, one after another, and write sweep.json after each.

    Args:
        tell: takes a line when a run starts and one when it has ended.

    Raises:
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
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    if status := done.returncode:
        lines = log.read_text(encoding="utf8", errors="replace").strip().splitlines()
        how = f"killed by signal {-status}" if status < 0 else f"status {status}"
        said = [line.removeprefix("mlx-gemma: ") for line in lines if line.startswith("mlx-gemma: ")]
        raise UserError((said or [f"{how}, see {log}"])[-1])
    tell(f"finished in {time.perf_counter() - started:.0f} s")


def finished(values: dict[str, str], folder: Path) -> Row:
    """The row of a finished run, from its manifest and metrics.

    Raises:
        UserError: one of them is missing or damaged.
    """
    result: dict[str, Any] = run.read_manifest(folder)["result"]
    path = folder / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
        measured = [line["valid_loss"] for line in lines if line["valid_loss"] is not None]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"unreadable metrics: {e!r}", where=path, fix="remove the folder and sweep again") from e
    return Row(
        values,
        str(folder),
        valid_loss=min(measured, default=None),
        regression=result.get("regression"),
        peak_memory_gb=result["peak_memory_gb"],
        seconds=result["seconds"],
        diagnosis=(result.get("diagnosis") or {}).get("kind"),
    )
