"""Corpora: the rows as training has them, kept, made anew when they should be, and refused when they are others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_gemma import run
from mlx_gemma.blame import cache, corpus, trained
from mlx_gemma.blame.index import LEARNED, NO_TOKEN
from mlx_gemma.blame.trained import corpus_of_data, corpus_of_run
from mlx_gemma.digest import digest_json
from mlx_gemma.errors import DataError, UserError
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import read_recipe
from mlx_gemma.training.prepare import Split, prepare
from mlx_gemma.training.record import made_from, recipe_text

PYTHON2 = "```python\nprint 'two'\n```"


def turns(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    lines = [turns(f"Write number {i}.", f"```python\nprint({i})\n```") for i in range(9)]
    lines.insert(3, turns("Say two.", PYTHON2))
    lines.append(turns("Hello!", "Hello, dear é.", "Again?", "Again and again, as often as you like to hear it."))
    lines.append(turns("word " * 80, "never learned: the cut takes it"))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def finished(rows: Path, *overrides: str) -> tuple[Path, Split]:
    """What a finished run leaves of its data, without the training, and what would have been trained."""
    path = rows.parent / "recipe.yaml"
    path.write_text(
        f"model: {{name: nano}}\ndata: {{train: {rows}}}\nfilter: {{near_duplicates: keep}}\n"
        f"train: {{steps: 1, length: 40}}\noutput: {rows.parent / 'run'}\n"
    )
    resolved = read_recipe(path, overrides)
    ready = prepare(resolved.recipe)
    folder = run.start(rows.parent / f"run{len(list(rows.parent.glob('run*')))}", recipe_text(resolved))
    run.write_json(folder / "audit.json", ready.report.as_json())
    made = made_from(resolved, ready)
    base = {"name": "nano", "revision": None}
    run.write_json(folder / run.MANIFEST, {"base": base, "template": made["template"], "data": made["data"]})
    return folder, ready.train


def same(found: corpus.Corpus, split: Split) -> bool:
    """Whether a corpus holds these examples; a row's first token is no target, as nothing comes before it."""
    assert [found.where(i) for i in range(len(found))] == split.where
    for i, example in enumerate(split.examples):
        ids = found.row(i)
        assert ids[0] == NO_TOKEN
        assert (ids[1:] & NO_TOKEN).tolist() == example.tokens
        assert (ids[:-1] >= LEARNED).tolist() == [False, *example.supervised[1:]]
    targets = np.flatnonzero(found.tokens >= LEARNED)
    return np.array_equal(np.sort(found.index), targets)


@pytest.mark.parametrize("overrides", [[], ["data.turns=last"], ["data.limit=5", "train.seed=3"], ["train.length=16"]])
def test_a_runs_corpus_is_what_was_trained(rows: Path, overrides: list[str]) -> None:
    folder, split = finished(rows, *overrides)
    assert not any(where.endswith(":4") for where in split.where)  # Python 2
    assert split.dropped or "data.limit=5" in overrides
    assert same(corpus_of_run(folder), split)


def test_it_is_made_once(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, split = finished(rows)
    corpus_of_run(folder)
    monkeypatch.setattr(trained, "_trained_rows", None)
    assert same(corpus_of_run(folder), split)
    os.utime(rows, ns=(1, 1))  # another time, the same file
    assert same(corpus_of_run(folder), split)


def test_it_is_made_anew_where_something_else_is_wanted(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, split = finished(rows)
    corpus_of_run(folder)
    other, last = finished(rows, "data.turns=last")
    (folder / run.RECIPE).write_text((other / run.RECIPE).read_text())
    assert same(corpus_of_run(folder), last)
    assert last.examples != split.examples
    rows.write_text(rows.read_text() + "\n")  # the same rows in another file
    assert same(corpus_of_run(folder), last)
    monkeypatch.setattr(cache, "LAYOUT", 0)
    (folder / trained.FOLDER / "index.npy").unlink()
    assert same(corpus_of_run(folder), last)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("edit", ["print(5)", "turn"])
def test_changed_data_is_refused(rows: Path, kept: bool, edit: str) -> None:
    folder, _ = finished(rows)
    if kept:
        corpus_of_run(folder)
    text = rows.read_text()
    changed = text.replace(edit, "print(6)") if edit != "turn" else text.replace('"user"', '"nobody"', 1)
    rows.write_text(changed)
    with pytest.raises(DataError, match=r"rows\.jsonl: the data has changed since this run was trained on it; put"):
        corpus_of_run(folder)
    assert not list((folder / "blame").glob("*"))
    rows.write_text(text)
    corpus_of_run(folder)


def test_missing_data_is_refused(rows: Path) -> None:
    folder, _ = finished(rows)
    corpus_of_run(folder)
    rows.unlink()
    with pytest.raises(DataError, match=r"rows\.jsonl: the run's data: no such file or folder; put it back"):
        corpus_of_run(folder)


def test_what_is_no_finished_run_is_refused(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run here"):
        corpus_of_run(tmp_path)
    folder, _ = finished(rows)
    manifest = json.loads((folder / run.MANIFEST).read_text())
    for changed, message in [
        ({"template": "0"}, "the chat template of nano is not the one this run was trained with"),
        ({"data": {}}, "unreadable manifest: KeyError"),
    ]:
        (folder / run.MANIFEST).write_text(json.dumps(manifest | changed))
        with pytest.raises(UserError, match=message):
            corpus_of_run(folder)
    (folder / "audit.json").unlink()
    with pytest.raises(UserError, match="unreadable audit"):
        corpus_of_run(folder)


def test_any_data(rows: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "corpus"
    found = corpus_of_data(str(rows), "nano", folder)
    assert len(found) == 12
    assert found.where(3) == f"{rows}:4"  # unfiltered
    with rows.open("a") as file:
        file.write('{"messages": []}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:13: 'messages' must be"):
        corpus_of_data(str(rows), "nano", folder)
    assert not list(folder.parent.iterdir())


def test_a_damaged_corpus_is_refused(rows: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    corpus_of_data(str(rows), "nano", folder)
    np.save(folder / "starts.npy", np.array([0, 5]))
    with pytest.raises(UserError, match="unreadable corpus: its arrays do not fit together; remove it"):
        corpus_of_data(str(rows), "nano", folder)
    (folder / "starts.npy").unlink()
    with pytest.raises(UserError, match="unreadable corpus"):
        corpus_of_data(str(rows), "nano", folder)


def test_nothing_and_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no row to search"):
        corpus.write(tmp_path, [])
    monkeypatch.setattr(corpus, "MOST", 4)
    with pytest.raises(UserError, match="4 tokens are too many to search; give fewer than 4"):
        corpus.write(tmp_path, [(Example([1, 2, 3], [True] * 3), "a:1")])


def test_the_digest_of_a_list_in_parts() -> None:
    for items in ([], [[{"é": 'a"b', "b": 1}]], [[1], "two", {"c": None}]):
        digest = trained._ListDigest()
        for item in items:
            digest.add(item)
        assert digest.hexdigest() == digest_json(items)
