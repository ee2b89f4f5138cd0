"""From a run folder to a gate: the rows that the run was trained on, encoded, in one index file.

The rows are those of the run, after filter, limit and length, which the manifest's digest proves. Of each the last user
turn is encoded, without the system turn: that is what a query is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma import run
from mlx_gemma.data.formats import BadRow, Row, scan_rows
from mlx_gemma.data.sources import data_files
from mlx_gemma.digest import digest_json
from mlx_gemma.errors import DataError, UserError
from mlx_gemma.gate.decision import BASE
from mlx_gemma.gate.encoders import Encoder, Kind, new_encoder
from mlx_gemma.gate.index import KnownRow, Made, write_index
from mlx_gemma.gate.stale import digests_of
from mlx_gemma.recipe import Recipe, read_recipe

FOLDER = "gate"  # in a run folder
BATCH = 256  # texts encoded between two reports of progress

Progress = Callable[[int, int], None]  # texts encoded, of so many


@dataclass(frozen=True)
class Built:
    """What was built: the gate's folder, its rows, and how many of their prompts differ."""

    folder: Path
    rows: int
    distinct: int
    encoder: Encoder


def build(
    run_folder: Path,
    out: Path | None = None,
    *,
    kind: Kind = "sentence-transformers",
    model: str | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Built:
    """Make a gate, a new folder, whole or not at all.

    Args:
        out: the run folder's `gate` if absent.
        kind, model: see encoders.py; `model` is the default of its kind if absent.
        name: of the specialist, as routes have it; the run folder's if absent.

    Raises:
        UserError: no finished run, its data or base changed since, no such encoder, `out` exists, or the disk refuses.

    Cost: reading the data, and encoding: about 10 ms a row with the default encoder on one core.
    """
    out = out or run_folder / FOLDER
    name = name or run_folder.resolve().name
    if name == BASE:
        raise UserError('a specialist cannot be named "base"', where=run_folder, fix="give another name (--name)")
    run.check_new(out)
    digests = digests_of(run_folder)
    rows = trained_rows(run_folder)
    with run.whole_folder(out) as part:
        encoder = new_encoder(kind, model, part)
        made = Made(
            name,
            os.path.relpath(run_folder.resolve(), out.resolve()),
            encoder.spec,
            {**digests, "encoder": encoder.spec.digest},
        )
        write_gate(part, [known(row) for row in rows], encoder, made, progress)
    return Built(out, len(rows), len({known(row).prompt for row in rows}), encoder)


def write_gate(
    folder: Path, rows: Sequence[KnownRow], encoder: Encoder, made: Made, progress: Progress | None = None
) -> None:
    """Encode rows, at least one, and write the index into a folder that is there.

    Raises:
        UserError: the disk refuses.
    """
    embeddings = np.empty((len(rows), encoder.spec.dimension), np.float32)
    for first in range(0, len(rows), BATCH):
        part = [row.prompt for row in rows[first : first + BATCH]]
        embeddings[first : first + BATCH] = encoder.encode(part)
        if progress is not None:
            progress(min(first + BATCH, len(rows)), len(rows))
    write_index(folder, rows, embeddings, made)


def known(row: Row) -> KnownRow:
    """A row as the index keeps it."""
    user = [m["content"] for m in row.messages if m["role"] == "user"]
    return KnownRow(user[-1] if user else row.prompt, row.answer, row.where)


def trained_rows(run_folder: Path) -> list[Row]:
    """The rows a finished run was trained on, in the order of its data.

    Raises:
        UserError: the data is not there, or is no longer what was trained on.
    """
    from mlx_gemma.training.prepare import limited

    manifest, recipe = run.read_manifest(run_folder), read_recipe(run_folder / run.RECIPE).recipe
    rejected = _rejected(run_folder)
    try:
        data_files(recipe.data.train)
    except DataError as e:
        fix = "put it back, or go to the folder the run was started in"
        raise DataError(f"the run's data: {e.what}", where=e.where, fix=fix) from e
    rows: list[Row] = []
    for row in scan_rows(recipe.data.train):
        if row.where in rejected:
            continue
        if isinstance(row, BadRow):
            raise _changed(recipe)
        rows.append(row)
    rows = limited(rows, recipe.data.limit, recipe.train.seed)
    if digest_json([row.messages for row in rows]) != manifest["data"]["train"]:
        raise _changed(recipe)
    if len(rows) != manifest["rows"]["train"]:  # some had nothing left to train, their answers being cut off
        rows = _with_targets(rows, recipe, manifest)
    return rows


def _rejected(run_folder: Path) -> set[str]:
    path = run_folder / "audit.json"
    try:
        return {row["where"] for row in json.loads(path.read_text(encoding="utf8"))["rejected_rows"]}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"unreadable audit: {e!r}", where=path, fix="train again") from e


def _with_targets(rows: list[Row], recipe: Recipe, manifest: dict[str, Any]) -> list[Row]:
    from mlx_gemma.gemma4.checkpoint import find
    from mlx_gemma.gemma4.template import ChatTemplate

    template = ChatTemplate(find(manifest["base"]["name"], manifest["base"]["revision"]).folder)

    def trained(row: Row) -> bool:
        return any(template.example(row.messages, turns=recipe.data.turns).supervised[: recipe.train.length])

    return [row for row in rows if trained(row)]


def _changed(recipe: Recipe) -> DataError:
    what = "the data has changed since this run was trained on it"
    return DataError(what, where=recipe.data.train, fix="put the file of then back, or train again")
