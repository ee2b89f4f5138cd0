"""What is said before training, at E2B's real shape: no array of it is ever computed here."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma.errors import RecipeError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import read_recipe
from mlx_gemma.training import plan
from mlx_gemma.training.prepare import Split, adapter_spec

RECIPE = Path(__file__).parents[2] / "recipes" / "python3.yaml"


def e2b() -> Any:
    """E2B's text decoder in bfloat16, never evaluated: mlx-lm's defaults are its configuration."""
    from mlx_lm.models.gemma4_text import Model, ModelArgs

    model = Model(ModelArgs())
    model.set_dtype(mx.bfloat16)
    return model


def rows(length: int, targets: int) -> Split:
    example = Example([0] * length, [False] * (length - targets) + [True] * targets)
    return Split([example] * 16, [""] * 16, 0, 0, "")


def test_the_articles_adapter_on_e2b() -> None:
    attached = lora.attach(e2b(), adapter_spec(read_recipe(RECIPE).recipe))
    assert attached.parameters == 48_316_416
    counts = {"q_proj": 35, "k_proj": 15, "v_proj": 15, "o_proj": 35, "gate_proj": 35, "up_proj": 35, "down_proj": 35}
    assert attached.modules == counts


def test_the_recipe_says_the_memory_that_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.platform, "backend", lambda: "metal")
    recipe, model = read_recipe(RECIPE).recipe, e2b()
    attached = lora.attach(model, adapter_spec(recipe))
    gemma: Any = SimpleNamespace(text=model, model=model)
    predicted = plan.predicted_peak(gemma, recipe, rows(160, 80), attached.parameters) / 1e9
    said = re.search(r"about\n# (\d+) GB", RECIPE.read_text())
    assert said
    assert round(predicted) == int(said[1])


@pytest.mark.parametrize("layers", [1, 16, 20])
def test_last_layers_that_hold_no_keys_are_told(layers: int) -> None:
    # T6: mlx-lm's default of 16 layers adapts only K/V-shared layers of E2B.
    spec = lora.AdapterSpec(8, 16.0, 0.0, ("q_proj", "k_proj"), layers)
    with pytest.raises(RecipeError, match=r"k_proj matches no module.*layers 15 and up share their K/V"):
        lora.attach(e2b(), spec)
