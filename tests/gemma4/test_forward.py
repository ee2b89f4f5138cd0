"""Hidden states at chosen positions: those of mlx-lm's own pass, and the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny_gemma4 import random_adapter

from mlx_gemma.gemma4.forward import states_at
from mlx_gemma.gemma4.load import Gemma, load

Models = Callable[[str], Path]
KINDS = ["nano", "e2b", "e2b-text", "e4b"]


def rows(length: int) -> tuple[mx.array, mx.array]:
    """Three rows and five unordered positions of each, one of them twice."""
    rng = np.random.default_rng(length)
    return mx.array(rng.integers(30, 3000, (3, length))), mx.array(rng.integers(0, length, (3, 5)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 15, 17, 140])
def test_states_are_those_of_the_whole_pass(models: Models, kind: str, length: int) -> None:
    # float32, below and beyond the sliding windows (16; nano's 128), in units of the states' own size.
    gemma = load(str(models(kind)))
    tokens, at = rows(length)
    whole = mx.take_along_axis(gemma.text.model(tokens), at[:, :, None], axis=1)
    found = states_at(gemma.text, tokens, at)
    assert mx.abs(found - whole).max().item() < 2e-3 * mx.abs(whole).max().item()
    assert mx.abs(found - whole).mean().item() < 2e-5 * mx.abs(whole).mean().item()


@pytest.mark.parametrize("kind", ["nano", "e4b"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradients_are_those_of_the_whole_pass(models: Models, tmp_path: Path, kind: str, checkpoint: bool) -> None:
    # T4: shared K/V that is not traced through a checkpoint loses gradient without changing the result.
    gemma = random_adapter(models(kind), tmp_path / "adapter")
    gemma.model.freeze()
    gemma.model.unfreeze(keys=["lora_a", "lora_b"])
    tokens, at = rows(40)

    def gradients(states: Callable[[Any], mx.array]) -> dict[str, mx.array]:
        def loss(_: Any) -> mx.array:
            return mx.square(states(gemma.text)).mean() + states(gemma.text)[..., ::3].sum()

        return dict(tree_flatten(nn.value_and_grad(gemma.model, loss)(None)[1]))

    whole = gradients(lambda text: mx.take_along_axis(text.model(tokens), at[:, :, None], axis=1))
    found = gradients(lambda text: states_at(text, tokens, at, checkpoint=checkpoint))
    assert found.keys() == whole.keys()
    largest = max(mx.abs(whole[k] - found[k]).max().item() / (mx.abs(whole[k]).max().item() + 1e-9) for k in whole)
    assert largest < 1e-3
    assert isinstance(gemma, Gemma)
