"""The loss: equal to the plain one over full logits, whatever the layout."""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import TrainSection
from mlx_gemma.training import batches, loss
from mlx_gemma.training.loss import summed_loss
from mlx_gemma.training.optimiser import PATIENCE, Updater, learning_rate

SPEC = lora.AdapterSpec(4, 8.0, 0.0, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))


@pytest.fixture(scope="module")
def adapted() -> Gemma:
    """nano with an adapter whose B is not zero, so that every tensor has a gradient."""
    gemma = load("nano")
    mx.random.seed(1)
    lora.attach(gemma.model, SPEC)
    for _, module in gemma.model.named_modules():
        if hasattr(module, "lora_b"):
            module.lora_b = 0.05 * mx.random.normal(module.lora_b.shape)
    return gemma


def rows(count: int = 6) -> list[Example]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        prompt, answer = 5 + 3 * i, 4 + 25 * i  # up to 150 tokens: beyond nano's sliding window of 128
        made.append(Example(rng.integers(30, 3000, prompt + answer).tolist(), [False] * prompt + [True] * answer))
    return made


def plain_loss(gemma: Gemma, example: Example) -> mx.array:
    """One unpadded row through the model's own call, cross entropy over full logits, targets picked afterwards."""
    ids = mx.array([example.tokens])
    losses = nn.losses.cross_entropy(gemma.model(ids[:, :-1]).astype(mx.float32), ids[:, 1:])[0]
    return (losses * mx.array(example.supervised[1:])).sum()


def largest_relative_difference(a: object, b: object) -> float:
    pairs = zip(tree_flatten(a), tree_flatten(b), strict=True)
    return max((mx.abs(x - y).max() / mx.maximum(mx.abs(x).max(), 1e-12)).item() for (_, x), (_, y) in pairs)  # type: ignore[misc]


@pytest.mark.parametrize("chunk", [None, 100, 64])
def test_loss_and_gradient_equal_the_plain_ones(
    adapted: Gemma, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunk:
        monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 3072 * chunk)  # several chunks, the last one smaller
    # float32; padded together against one row at a time. Reference noise floor of the same comparison: 1.4e-4.
    examples = rows()
    batch = batches.collate(examples, range(len(examples)))
    assert summed_loss(adapted.text, batch, gradient=False).item() == pytest.approx(
        summed_loss(adapted.text, batch).item(), rel=1e-6
    )
    ours, g_ours = nn.value_and_grad(adapted.model, lambda b: summed_loss(adapted.text, b))(batch)
    plain, g_plain = nn.value_and_grad(adapted.model, lambda e: sum(plain_loss(adapted, x) for x in e))(examples)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    assert largest_relative_difference(g_plain, g_ours) < 5e-4


def updated(train: TrainSection, sizes: list[int]) -> dict[str, mx.array]:
    """Adapter weights after one update on six rows, split into micro-batches of the given sizes."""
    gemma = load("nano")
    mx.random.seed(1)
    lora.attach(gemma.model, SPEC)
    examples = rows()
    update = Updater(gemma.model, gemma.text, train, str)
    starts = np.cumsum([0, *sizes])
    done = update([batches.collate(examples, range(a, b)) for a, b in pairwise(starts)], 1e-3)
    assert done.targets == sum(e.targets for e in examples)
    return lora.adapter_parameters(gemma.model)


def test_accumulation_equals_one_batch() -> None:
    # T11: mlx-lm takes a mean of means. Adam's first update divides each gradient by its own size, so a gradient that
    # is all rounding error may move its weight by the whole rate: one weight in a thousand may do so.
    train = TrainSection(steps=1, lr=1e-3)
    whole = updated(train, [6])
    for sizes in ([1] * 6, [2, 4], [5, 1]):
        split = updated(train, sizes)
        for name, value in whole.items():
            close = mx.abs(value - split[name]) < 1e-6
            assert close.mean().item() > 0.999, name


def test_a_non_finite_update_is_skipped_and_named() -> None:
    # T14: one bad batch is permanent in mlx-lm (issue 1658).
    gemma = load("nano")
    lora.attach(gemma.model, SPEC)
    examples = rows(2)
    update = Updater(gemma.model, gemma.text, TrainSection(steps=1), lambda r: f"rows.jsonl:{r + 1}")
    before = lora.adapter_parameters(gemma.model)
    batch = batches.collate(examples, [0, 1])
    poisoned = batches.Batch(batch.tokens, batch.source, batch.target, batch.weight * mx.inf, batch.rows, batch.targets)
    for _ in range(PATIENCE - 1):
        assert update([poisoned], 1e-3).skipped
    after = lora.adapter_parameters(gemma.model)
    assert all(mx.array_equal(before[k], after[k]) for k in before)
    with pytest.raises(Exception, match=r"rows.jsonl:1, rows.jsonl:2"):
        update([poisoned], 1e-3)


def test_learning_rate_schedules() -> None:
    # T34: counted in updates.
    cosine = [learning_rate(TrainSection(steps=100, lr=1.0, warmup=0.1), s, 100) for s in range(100)]
    assert cosine[0] == pytest.approx(0.1)
    assert cosine[9] == cosine[10] == 1.0
    assert cosine[55] == pytest.approx(0.5, abs=1e-6)
    assert 0 < cosine[99] < 0.001
    linear = [learning_rate(TrainSection(steps=10, lr=1.0, warmup=0, schedule="linear"), s, 10) for s in range(10)]
    assert linear == pytest.approx([1 - s / 10 for s in range(10)])
    constant = TrainSection(steps=10, lr=1.0, warmup=0, schedule="constant")
    assert {learning_rate(constant, s, 10) for s in range(10)} == {1.0}
