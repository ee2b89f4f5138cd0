"""What is said before training, at E2B's real shape: no array of it is ever computed here."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_gemma.errors import ModelError, RecipeError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.forward import check_supported
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import read_recipe
from mlx_gemma.training.memory import predicted_peak
from mlx_gemma.training.prepare import Split, adapter_spec

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE = RECIPES / "python3.yaml"


def e2b() -> Any:
    """E2B's text decoder in bfloat16, never evaluated: mlx-lm's defaults are its configuration."""
    from mlx_lm.models.gemma4_text import Model, ModelArgs

    model = Model(ModelArgs())
    model.set_dtype(mx.bfloat16)
    return model


def e4b() -> Any:
    """E4B's, likewise."""
    from mlx_lm.models.gemma4_text import Model, ModelArgs

    types = (["sliding_attention"] * 5 + ["full_attention"]) * 7
    shape = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 42, "num_kv_shared_layers": 18}
    model = Model(ModelArgs(**shape, num_key_value_heads=2, use_double_wide_mlp=False, layer_types=types))
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


@pytest.mark.parametrize(
    ("name", "longest", "targets"), [("python3", 137, 120), ("python3-qlora", 137, 120), ("vulnerability", 393, 12)]
)
def test_the_recipe_says_the_memory_that_is_predicted(name: str, longest: int, targets: int) -> None:
    # At the longest rows of each data set; as loading quantises, the saved bits are taken off the weights here.
    recipe = read_recipe(RECIPES / f"{name}.yaml").recipe
    model = e4b() if "E4B" in recipe.model.name else e2b()
    saved = 0.0
    for tensor, value in tree_flatten(model.parameters()):
        part = tensor.split(".")[-2]
        embedding = part in ("embed_tokens", "embed_tokens_per_layer")
        mode = recipe.model.quantize_embeddings if embedding else recipe.model.quantize
        if mode != "none" and (embedding or part in recipe.adapter.targets):
            saved += value.size * (16 - 4.5) / 8  # affine4 and nf4, scales included
    attached = lora.attach(model, adapter_spec(recipe))
    examples = rows(longest, targets).examples
    peak = predicted_peak(model, recipe.train, recipe.adapter, examples, attached.parameters)
    said = re.search(r"[Pp]eak memory: about\s(?:# )?(\d+) GB", (RECIPES / f"{name}.yaml").read_text())
    assert said
    assert round((peak - saved) / 1e9) == int(said[1])


@pytest.mark.parametrize(
    "changed", [{"hidden_size_per_layer_input": 0}, {"attention_k_eq_v": True}, {"enable_moe_block": True}]
)
def test_other_sizes_of_gemma_4_are_refused(changed: dict[str, Any]) -> None:
    from mlx_lm.models.gemma4_text import ModelArgs

    with pytest.raises(ModelError, match=r"some/model: this Gemma 4 has .*; train google/gemma-4-E2B-it"):
        check_supported(SimpleNamespace(args=ModelArgs(**changed)), "some/model")
    check_supported(SimpleNamespace(args=ModelArgs()))


@pytest.mark.parametrize("layers", [1, 16, 20])
def test_last_layers_that_hold_no_keys_are_told(layers: int) -> None:
    # T6: mlx-lm's default of 16 layers adapts only K/V-shared layers of E2B.
    spec = lora.AdapterSpec(8, 16.0, 0.0, ("q_proj", "k_proj"), layers)
    with pytest.raises(RecipeError, match=r"k_proj matches no module.*layers 15 and up share their K/V"):
        lora.attach(e2b(), spec)
