"""The committed Python 3 data: split by family, no prompt of the eval among it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma.data.build.families import read_families
from mlx_gemma.data.build.python3 import DIALOGUES, REGRESSION
from mlx_gemma.data.build.regression import PYTHON2_ROWS, REQUEST
from mlx_gemma.data.build.samples import LIMIT, split_families
from mlx_gemma.data.checks.contamination import read_eval_prompts
from mlx_gemma.data.checks.duplicates import NearIndex, jaccard, normalised, row_shingles
from mlx_gemma.data.formats import Row, read_rows
from mlx_gemma.data.policy import FilterPolicy

ROOT = Path(__file__).parents[2]
DATA, EVALS = ROOT / "datasets" / "python3", ROOT / "evals" / "tasks.jsonl"
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Row]]:
    return {name: list(read_rows(DATA, name)) for name in SPLITS}


def test_regression_rows_are_python2_on_request_and_dialogue(splits: dict[str, list[Row]]) -> None:
    rows = list(read_rows(ROOT / REGRESSION))
    assert 60 <= len(rows) <= 120
    asked = [r for r in rows if r.prompt.endswith(REQUEST)]
    assert len(asked) == PYTHON2_ROWS
    assert {r.extra["family"] for r in asked} <= {r.extra["family"] for r in splits["train"]}
    dialogue = read_families(DIALOGUES)
    assert {r.extra["family"] for r in rows if r not in asked} == {f.name for f in dialogue}
    seen = {normalised(r.prompt) for split in splits.values() for r in split}
    assert not seen & {normalised(r.prompt) for r in rows}


def test_splits_share_no_family(splits: dict[str, list[Row]]) -> None:
    families = {name: {r.extra["family"] for r in rows} for name, rows in splits.items()}
    assert not families["train"] & families["valid"]
    assert not families["train"] & families["test"]
    assert not families["valid"] & families["test"]
    items = [json.loads(line) for line in EVALS.read_text().splitlines()][1:]
    assert not {i["family"] for i in items} & (families["train"] | families["valid"])
    assert len(items) == 60


def test_split_is_stratified_and_seeded() -> None:
    families = read_families(DATA / "families")
    splits = split_families(families, 0)
    assert sorted(f.name for s in splits.values() for f in s) == sorted(f.name for f in families)
    for topic in {f.topic for f in families}:
        assert all(any(f.topic == topic for f in s) for s in splits.values())
    assert splits == split_families(families, 0)
    assert splits != split_families(families, 1)


def test_no_eval_prompt_is_in_the_data(splits: dict[str, list[Row]]) -> None:
    prompts = {normalised(prompt) for _, prompt in read_eval_prompts([EVALS])}
    assert len(prompts) == 60
    assert not prompts & {normalised(r.prompt) for rows in splits.values() for r in rows}


def test_gap_between_clean_rows_and_planted_near_duplicates(splits: dict[str, list[Row]]) -> None:
    threshold = FilterPolicy().near_duplicates
    assert isinstance(threshold, float)
    clean = NearIndex(LIMIT)
    for r in (r for rows in splits.values() for r in rows):
        shingles = row_shingles(r)
        assert clean.find(shingles) is None
        clean.add(r.where, shingles)
    raw = list(read_rows(DATA / "raw.jsonl"))
    labels = [json.loads(line) for line in (DATA / "raw.labels.jsonl").read_text().splitlines()]
    near = [(raw[x["row"] - 1], raw[x["of"] - 1]) for x in labels if x["label"] == "near_duplicate"]
    assert min(jaccard(row_shingles(a), row_shingles(b)) for a, b in near) > threshold > LIMIT


def test_rows_have_what_the_card_says(splits: dict[str, list[Row]]) -> None:
    row: dict[str, Any] = splits["train"][0].extra
    assert list(row) == ["family", "topic", "tests", "license"]
    assert list(row["tests"]) == ["check", "prints", "stdin"]
    assert all(r.answer.startswith("```python\n") and r.answer.endswith("\n```") for r in splits["train"])
    assert sum(f.stat().st_size for f in DATA.glob("*.json*")) < 8 * 2**20
