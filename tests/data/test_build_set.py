"""`data build`: the committed rows from the package's own families, deterministic, with labels that are true."""

from __future__ import annotations

import fnmatch
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma.data.build import python3 as build
from mlx_gemma.data.build.families import read_families
from mlx_gemma.data.build.sets import build_set
from mlx_gemma.data.card.digests import changed
from mlx_gemma.errors import UserError

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mlx_gemma"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_families_and_texts_are_in_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["mlx_gemma"]
    needed = [*build.FAMILIES.glob("*.toml"), PACKAGE / "data" / "build" / "adversarial.toml"]
    assert len(needed) > 9
    for path in needed:
        assert any(fnmatch.fnmatch(str(path.relative_to(PACKAGE)), pattern) for pattern in patterns), path


def test_families_are_found_where_the_data_sets_card_says() -> None:
    assert read_families(ROOT / "datasets" / "python3" / "families") == read_families(build.FAMILIES)


def test_raw_is_the_committed_set(tmp_path: Path) -> None:
    counts = build_set("raw", tmp_path / "raw")
    committed = ROOT / "datasets" / "python3"
    same = {"train": "raw", "train.labels": "raw.labels", "valid": "valid", "test": "test"}
    for made, name in same.items():
        assert (tmp_path / "raw" / f"{made}.jsonl").read_bytes() == (committed / f"{name}.jsonl").read_bytes(), name
    assert (tmp_path / "raw" / "suite.jsonl").read_bytes() == (ROOT / "evals" / "tasks.jsonl").read_bytes()
    assert counts["train"]["rows"] == 5980
    assert counts["train"]["leaked"] == 60


def test_pushback_rows_are_labelled_and_the_others_stay_as_they_are(tmp_path: Path) -> None:
    counts = build_set("python3", tmp_path / "with", rows=200, pushback=0.2)
    build_set("python3", tmp_path / "without", rows=160)
    rows = read(tmp_path / "with" / "train.jsonl")
    labels = read(tmp_path / "with" / "train.labels.jsonl")
    assert counts["train"] == {"rows": 200, "pushback": 40}
    assert len(rows) == 200
    assert {label["label"] for label in labels} == {"pushback"}
    at = {label["row"] for label in labels}
    plain = [json.dumps(r) for n, r in enumerate(rows, 1) if n not in at]
    assert sorted(plain) == sorted(map(json.dumps, read(tmp_path / "without" / "train.jsonl")))
    assert all(r["messages"][1]["content"].startswith("```python") for n, r in enumerate(rows, 1) if n not in at)
    assert all(not rows[n - 1]["messages"][1]["content"].startswith("```") for n in at)
    assert not list((tmp_path / "without").glob("*.labels.jsonl"))
    assert changed(tmp_path / "with") == []


def test_the_same_arguments_give_the_same_bytes_and_faults_spare_pushback(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_set("raw", tmp_path / name, rows=250, pushback=0.2, answer="comply", seed=3)
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert "README.md" in files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    labels = read(tmp_path / "one" / "train.labels.jsonl")
    assert len({label["row"] for label in labels}) == len(labels)
    found = [label["label"] for label in labels]
    assert found.count("pushback") == 50
    assert found.count("python2") + found.count("python2_value") == round(480 * 200 / 5000)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists"):
        build_set("python3", tmp_path)
