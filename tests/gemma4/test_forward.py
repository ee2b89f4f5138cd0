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

from mlx_gemma.gemma4.forward import Layout, states_at
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.template import Example
from mlx_gemma.training.batches import collate

Models = Callable[[str], Path]
KINDS = ["nano", "e2b", "e2b-text", "e4b"]


def rows(length: int) -> tuple[mx.array, np.ndarray]:
    """Three rows and five unordered positions of each."""
    rng = np.random.default_rng(length)
    return mx.array(rng.integers(30, 3000, (3, length))), rng.integers(0, length, (3, 5))


def laid_out(tokens: mx.array, at: np.ndarray) -> Layout:
    """A document a row; positions in any order, and any of them twice."""
    count, length = tokens.shape
    places = np.arange(at.size)
    arrays = (
        tokens,
        np.zeros((count, length)),
        np.broadcast_to(np.arange(length), (count, length)),
        (at + length * np.arange(count)[:, None]).reshape(-1),
        places.reshape(at.shape),
        places,
    )
    return Layout(*(mx.array(a).astype(mx.int32) for a in arrays))


def close(found: mx.array, whole: mx.array) -> None:
    """float32, in units of the states' own size: what the order of sums and our rotation's cosines leave."""
    assert mx.abs(found - whole).max().item() < 2e-3 * mx.abs(whole).max().item()
    assert mx.abs(found - whole).mean().item() < 2e-5 * mx.abs(whole).mean().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 15, 17, 140])
def test_states_are_those_of_the_whole_pass(models: Models, kind: str, length: int) -> None:
    # float32, below and beyond the sliding windows (16; nano's 128).
    gemma = load(str(models(kind)))
    tokens, at = rows(length)
    whole = mx.take_along_axis(gemma.text.model(tokens), mx.array(at)[:, :, None], axis=1)
    close(states_at(gemma.text, laid_out(tokens, at)), whole.reshape(-1, whole.shape[-1]))


@pytest.mark.parametrize("kind", ["nano", "e4b"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradients_are_those_of_the_whole_pass(models: Models, tmp_path: Path, kind: str, checkpoint: bool) -> None:
    # T4: shared K/V that is not traced through a checkpoint loses gradient without changing the result.
    gemma = random_adapter(models(kind), tmp_path / "adapter")
    gemma.model.freeze()
    gemma.model.unfreeze(keys=["lora_a", "lora_b"])
    tokens, at = rows(40)
    layout = laid_out(tokens, at)

    def gradients(states: Callable[[Any], mx.array]) -> dict[str, mx.array]:
        def loss(_: Any) -> mx.array:
            return mx.square(states(gemma.text)).mean() + states(gemma.text)[..., ::3].sum()

        return dict(tree_flatten(nn.value_and_grad(gemma.model, loss)(None)[1]))

    whole = gradients(lambda text: mx.take_along_axis(text.model(tokens), mx.array(at)[:, :, None], axis=1))
    found = gradients(lambda text: states_at(text, layout, checkpoint=checkpoint))
    assert found.keys() == whole.keys()
    largest = max(mx.abs(whole[k] - found[k]).max().item() / (mx.abs(whole[k]).max().item() + 1e-9) for k in whole)
    assert largest < 1e-3
    assert isinstance(gemma, Gemma)


def documents() -> list[Example]:
    """Eight of 2 to 200 tokens, beyond both sliding windows; from one target to all but one."""
    rng = np.random.default_rng(3)
    made = []
    for length, share in ((200, 0.05), (150, 1.0), (2, 1.0), (60, 0.5), (17, 1.0), (33, 0.03), (3, 1.0), (16, 0.5)):
        supervised = [False, *(rng.random(length - 1) < share).tolist()]
        supervised[-1] = True
        made.append(Example(rng.integers(30, 3000, length).tolist(), supervised))
    return made


PACKED = {
    "one row": [[0, 1, 2, 3, 4, 5, 6, 7]],
    "uneven rows": [[1, 4, 3], [2], [0, 5], [7, 6]],  # 200 targets, 1, about 10, about 10
    "padded": [[i] for i in range(8)],
}


@pytest.mark.parametrize("kind", ["nano", "e2b", "e4b"])
@pytest.mark.parametrize("layout", PACKED)
def test_a_document_in_a_row_is_the_document_alone(models: Models, kind: str, layout: str) -> None:
    # T2: neighbours in a row are not seen, positions are the document's own, and each state finds its way back.
    gemma, made = load(str(models(kind))), documents()
    batch = collate(made, PACKED[layout], 512 if layout == "one row" else None)
    found = states_at(gemma.text, batch.layout)[: batch.targets]
    alone = []
    for index in batch.rows:
        e = made[index]
        at = mx.array(np.flatnonzero(e.supervised) - 1)
        alone.append(mx.take(gemma.text.model(mx.array([e.tokens[:-1]]))[0], at, axis=0))
    close(found, mx.concatenate(alone))


@pytest.mark.parametrize("kind", ["nano", "e2b"])
def test_other_documents_change_no_bit_of_what_is_seen(models: Models, kind: str) -> None:
    """Other tokens next door, of the same number: the same product shapes, so the states are equal to the bit."""
    gemma, made = load(str(models(kind))), documents()
    rows = [[0, 1, 3], [4, 5]]
    batch = collate(made, rows)
    before = np.array(states_at(gemma.text, batch.layout))
    made[1] = Example([7] * 150, made[1].supervised)
    after = np.array(states_at(gemma.text, collate(made, rows).layout))
    first, second = made[0].targets, made[0].targets + made[1].targets
    same = (before == after).all(axis=-1)
    assert same[:first].all()
    assert same[second : batch.targets].all()
    assert not same[first:second].any()
