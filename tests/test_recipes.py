"""Every recipe of the repository trains two steps: nano as it is, the others on a small random model of their kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import mlx_gemma
from mlx_gemma import run
from mlx_gemma.recipe import read_recipe

ROOT = Path(__file__).parents[1]
STANDS_FOR = {"google/gemma-4-E2B-it": "e2b", "google/gemma-4-E4B-it": "e4b"}
QUANTISED = "wide"  # its widths are multiples of a quantised group


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_recipe_trains_two_steps(
    path: Path, tmp_path: Path, models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = read_recipe(path).recipe.model
    small = QUANTISED if asked.quantize != "none" else STANDS_FOR.get(asked.name)
    model = str(models(small)) if small else asked.name
    overrides = [f"model.name={model}", "train.steps=2", "train.epochs=null", "data.limit=16", f"output={tmp_path}/run"]
    monkeypatch.chdir(ROOT)
    folder = mlx_gemma.train(read_recipe(path, [*overrides, "train.batch=2", "data.valid=null"]))
    manifest = run.read_manifest(folder)
    assert manifest["result"]["steps"] == 2
    assert manifest["rows"]["train"] == 16
