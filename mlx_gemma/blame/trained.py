"""From a run folder, or any data file, to its corpus: the rows as they were trained, rendered without the weights.

Which rows the audit left out is read from the run's audit.json rather than found again: that takes a millisecond a row
less, and stays true where an eval file or the Python that judged has changed since. The manifest's digest of the rows
then proves that these are the ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_gemma import run
from mlx_gemma.blame.cache import cached
from mlx_gemma.blame.corpus import Corpus
from mlx_gemma.data.formats import BadRow, Row, read_rows, scan_rows
from mlx_gemma.data.sources import data_files
from mlx_gemma.digest import digest_files
from mlx_gemma.errors import DataError, UserError
from mlx_gemma.gemma4.checkpoint import Checkpoint, find
from mlx_gemma.gemma4.template import ChatTemplate, Example
from mlx_gemma.recipe import Recipe, read_recipe
from mlx_gemma.training.prepare import limited

FOLDER = Path("blame") / "corpus"  # in a run folder
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def corpus_of_run(folder: Path, template: ChatTemplate | None = None) -> Corpus:
    """What a finished run was trained on: its rows after filter, limit and cutting, in the order of the data.

    Args:
        folder: the run's; the corpus is kept in blame/ under it.
        template: of the run's base, where it is loaded already (otherwise a second or so).

    Raises:
        UserError: no finished run, its base or its data is not there, or either is no longer what was trained with.

    Cost: the first time half a millisecond a row, mostly tokenising; later milliseconds, or a second a GB where only
    the data file's time of change is another.
    """
    manifest, recipe = run.read_manifest(folder), read_recipe(folder / run.RECIPE).recipe
    rejected = _rejected(folder)
    try:
        base, trained, data = manifest["base"], str(manifest["template"]), str(manifest["data"]["train"])
        checkpoint = find(base["name"], base["revision"])
    except (KeyError, TypeError) as e:
        raise UserError(f"unreadable manifest: {e!r}", where=folder / run.MANIFEST, fix="train again") from e
    template = template or ChatTemplate(checkpoint.folder)
    if template.digest != trained:
        what = f"the chat template of {checkpoint.name} is not the one this run was trained with"
        raise UserError(what, where=folder, fix="put the base's chat template of then back")
    try:
        files = data_files(recipe.data.train)
    except DataError as e:
        fix = "put it back, or go to the folder the run was started in"
        raise DataError(f"the run's data: {e.what}", where=e.where, fix=fix) from e
    made_from = {"data": data, "turns": recipe.data.turns, "length": recipe.train.length}
    made_from |= _rendered_with(template, checkpoint)
    return cached(folder / FOLDER, made_from, files, lambda: _trained_rows(recipe, rejected, template, data))


def corpus_of_data(data: str, model: str, folder: Path) -> Corpus:
    """Every row of a data set, uncut, rendered for a model, all of the model's turns learned.

    Args:
        data: as `data.train` of a recipe.
        model: whose template and tokenizer are taken: nano, a folder, or a hub id.
        folder: where the corpus is kept; what is in it is replaced.

    Raises:
        UserError: no such data or model, a bad row (file and line), or the disk refuses.
    """
    checkpoint = find(model)
    template = ChatTemplate(checkpoint.folder)

    def rows() -> Iterator[tuple[Example, str]]:
        for row in read_rows(data):
            yield _rendered(row, template, "all"), row.where

    return cached(folder, _rendered_with(template, checkpoint), data_files(data), rows)


def _rendered_with(template: ChatTemplate, checkpoint: Checkpoint) -> dict[str, str]:
    files = [checkpoint.folder / name for name in TOKENIZER]
    return {"template": template.digest, "tokenizer": digest_files(files)}


def _rejected(folder: Path) -> set[str]:
    path = folder / "audit.json"
    try:
        return {row["where"] for row in json.loads(path.read_text(encoding="utf8"))["rejected_rows"]}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"unreadable audit: {e!r}", where=path, fix="train again") from e


def _trained_rows(
    recipe: Recipe, rejected: set[str], template: ChatTemplate, trained: str
) -> Iterator[tuple[Example, str]]:
    """The training split as `training.prepare.render` makes it, but a row at a time, the digest checked at the end."""
    digest = _ListDigest()
    rows = _kept(recipe, rejected)
    if recipe.data.limit is not None:
        rows = iter(limited(list(rows), recipe.data.limit, recipe.train.seed))
    for row in rows:
        digest.add(row.messages)
        example, length = _rendered(row, template, recipe.data.turns), recipe.train.length
        example = Example(example.tokens[:length], example.supervised[:length])
        if example.targets:
            yield example, row.where
    if digest.hexdigest() != trained:
        raise _changed(recipe)


def _kept(recipe: Recipe, rejected: set[str]) -> Iterator[Row]:
    for row in scan_rows(recipe.data.train):
        if row.where in rejected:
            continue
        if isinstance(row, BadRow):
            raise _changed(recipe)
        yield row


def _changed(recipe: Recipe) -> DataError:
    what = "the data has changed since this run was trained on it"
    return DataError(what, where=recipe.data.train, fix="put the file of then back, or train again")


def _rendered(row: Row, template: ChatTemplate, turns: str) -> Example:
    try:
        return template.example(row.messages, turns=turns)
    except DataError as e:
        raise DataError(e.what, where=row.where, fix=e.fix) from e


class _ListDigest:
    """`digest.digest_json` of a list, an item at a time: the JSON of a million rows is never held."""

    def __init__(self) -> None:
        self._hash, self._before = hashlib.sha256(b"["), b""

    def add(self, item: Any) -> None:
        text = json.dumps(item, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
        self._hash.update(self._before + text.encode("utf8"))
        self._before = b","

    def hexdigest(self) -> str:
        final = self._hash.copy()
        final.update(b"]")
        return final.hexdigest()
