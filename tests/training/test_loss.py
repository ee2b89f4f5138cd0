"""The loss and one update: equal to the plain ones over full logits, whatever the layout and however compiled."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.layers import geglu, head
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import TrainSection
from mlx_gemma.training import loss, optimiser
from mlx_gemma.training.batches import Batch, collate
from mlx_gemma.training.loss import summed_loss
from mlx_gemma.training.optimiser import PATIENCE, Updater, learning_rate

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LAYOUTS = {
    "padded": [[0], [1], [2], [3], [4], [5]],
    "packed": [[0, 1, 2, 3, 4, 5]],
    "packed in two rows": [[5, 0], [1, 3, 2, 4]],
}


def spec(**values: Any) -> lora.AdapterSpec:
    return lora.AdapterSpec(**{"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": TARGETS} | values)


def adapter(**values: Any) -> Gemma:
    """nano with an adapter whose B is not zero, so that every tensor has a gradient."""
    gemma = load("nano")
    mx.random.seed(1)
    lora.attach(gemma.model, spec(**values))
    for _, module in gemma.model.named_modules():
        if hasattr(module, "lora_b"):
            module.lora_b = 0.05 * mx.random.normal(module.lora_b.shape)
    gemma.model.train()
    return gemma


@pytest.fixture(scope="module")
def adapted() -> Gemma:
    return adapter()


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
    """Over all tensors: the largest difference in one, in units of its largest value."""
    pairs = zip(tree_flatten(a), tree_flatten(b), strict=True)
    return max((mx.abs(x - y).max() / mx.maximum(mx.abs(x).max(), 1e-12)).item() for (_, x), (_, y) in pairs)  # type: ignore[misc]


def loss_and_gradient(gemma: Gemma, *found: Batch) -> tuple[float, Any]:
    value, grads = nn.value_and_grad(gemma.model, lambda _: sum(summed_loss(gemma.text, b) for b in found))(None)
    return value.item(), grads


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunk", [None, 100, 64])
def test_loss_and_gradient_equal_the_plain_ones(
    adapted: Gemma, chunk: int | None, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunk:
        monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 3072 * chunk)  # several chunks, the last one smaller
    # float32; together against one row at a time. Reference noise floor of the same comparison: 1.4e-4; measured 1e-5.
    # The sums of the gradient have another order in every layout, and the rotation's cosines are ours, not mlx's.
    examples = rows()
    batch = collate(examples, LAYOUTS[layout])
    ours, g_ours = loss_and_gradient(adapted, batch)
    assert summed_loss(adapted.text, batch, gradient=False).item() == pytest.approx(ours, rel=1e-6)
    plain, g_plain = nn.value_and_grad(adapted.model, lambda e: sum(plain_loss(adapted, x) for x in e))(examples)
    assert ours == pytest.approx(plain.item(), rel=1e-5)
    assert largest_relative_difference(g_plain, g_ours) < 1.4e-4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_agree(adapted: Gemma, layout: str) -> None:
    """Packed = padded = one row at a time: only the order of sums is another (measured: 3e-6)."""
    examples = rows()
    one, g_one = loss_and_gradient(adapted, *(collate(examples, [[i]]) for i in range(6)))
    found, grads = loss_and_gradient(adapted, collate(examples, LAYOUTS[layout]))
    assert found == pytest.approx(one, rel=1e-6)
    assert largest_relative_difference(g_one, grads) < 3e-5


@pytest.mark.parametrize("cap", [30.0, 5.0, None])
def test_the_gradient_taken_in_the_forward_pass_is_autograd_s(
    adapted: Gemma, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # T8: the soft cap's slope is in it; at 5 most logits are near the cap, where the slope is far from 1.
    monkeypatch.setattr(adapted.text, "final_logit_softcapping", cap)
    rng = np.random.default_rng(0)
    hidden = mx.array(3 * rng.normal(size=(40, adapted.text.args.hidden_size)).astype(np.float32))
    target, weight = mx.array(rng.integers(0, 3072, 40)), mx.array((rng.random(40) < 0.7).astype(np.float32))

    def plain(h: mx.array) -> mx.array:
        return nn.losses.cross_entropy(head(adapted.text, h), target) @ weight

    wanted, gradient = mx.value_and_grad(plain)(hidden)
    value, found = loss._loss_and_gradient(adapted.text, hidden, target, weight)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert mx.abs(found - gradient).max().item() < 1e-5 * mx.abs(gradient).max().item()


TOLERANCE = 1e-5  # of a compiled gradient: fused operations round less often
WAYS = {
    "plain": lambda f: f,
    "checkpoint": mx.checkpoint,
    "compile": mx.compile,
    "both": lambda f: mx.compile(mx.checkpoint(f)),
}


@pytest.mark.parametrize("way", WAYS)
def test_geglu_s_gradient_is_autograd_s(way: str) -> None:
    rng = np.random.default_rng(0)
    gate, up, weight = (mx.array(s * rng.normal(size=(50, 40)).astype(np.float32)) for s in (3, 1, 1))
    gate[0, :6] = mx.array([0.0, -0.75, 1e-4, -12.0, 12.0, 60.0])  # the minimum, and where tanh is 1

    def summed(f: Any) -> Any:
        return lambda gate, up: (f(gate, up) * weight).sum()

    run = WAYS[way](summed(geglu))
    plain = summed(lambda gate, up: nn.gelu_approx(gate) * up)
    assert run(gate, up).item() == pytest.approx(plain(gate, up).item(), rel=1e-5)
    found = mx.grad(run, argnums=(0, 1))(gate, up)
    whole = mx.compile(mx.grad(summed(geglu), argnums=(0, 1)))(gate, up) if way == "compile" else found
    for wanted, one, other in zip(mx.grad(plain, argnums=(0, 1))(gate, up), found, whole, strict=True):
        assert mx.isfinite(one).all().item()
        assert mx.abs(one - wanted).max().item() < 1e-5 * mx.abs(wanted).max().item()
        assert mx.abs(other - wanted).max().item() < 1e-5 * mx.abs(wanted).max().item()


def updater(gemma: Gemma, compiled: bool = False, **train: Any) -> Updater:
    return Updater(gemma.model, gemma.text, TrainSection(**{"steps": 1} | train), str, compiled=compiled)


@pytest.mark.parametrize(
    ("layout", "checkpointing", "dropout"),
    [("padded", False, 0.0), ("padded", True, 0.3), ("packed", True, 0.0), ("packed", False, 0.3)],
)
def test_the_compiled_gradient_is_the_eager_one(layout: str, checkpointing: bool, dropout: float) -> None:
    gemma = adapter(dropout=dropout)
    batch = collate(rows(), LAYOUTS[layout])
    eager = updater(gemma, checkpointing=checkpointing)
    fast = updater(gemma, compiled=True, checkpointing=checkpointing)
    for step in range(2):  # the second call takes the compiled function, and another key
        eager.step = fast.step = step
        (wanted, g_wanted), (found, grads) = eager.gradient(batch), fast.gradient(batch)
        assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
        assert largest_relative_difference(g_wanted, grads) < TOLERANCE
    fast([batch], 1e-3)  # and it is of the parameters as they are then
    eager.parameters = fast.parameters
    eager.step = fast.step
    assert largest_relative_difference(eager.gradient(batch)[1], fast.gradient(batch)[1]) < TOLERANCE


def test_compiled_programs_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    # T35: hundreds of compiled shapes exhaust Metal's resources in a long run (unsloth-zoo 918).
    compiled, plain = [], mx.compile
    monkeypatch.setattr(mx, "compile", lambda f: compiled.append(f) or plain(f))
    monkeypatch.setattr(optimiser, "MOST_SHAPES", 2)
    gemma = adapter()
    fast, eager = updater(gemma, compiled=True), updater(gemma)
    count = len(compiled)
    for number, chosen in enumerate([[0], [1], [0], [0, 1], [0, 1, 2], [0, 1, 2]]):
        batch = collate(rows(), [[r] for r in chosen], 32 * (number + 4))
        for _ in range(2):
            assert largest_relative_difference(eager.gradient(batch)[1], fast.gradient(batch)[1]) < TOLERANCE
    assert len(compiled) == count + 2  # of six shapes, after the second and the fourth


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout_is_the_same_when_recomputed(layout: str) -> None:
    # T36: recomputed with other masks, the gradient would be of another function than the loss.
    gemma = adapter(dropout=0.3)
    batch = collate(rows(), LAYOUTS[layout])
    plain, again = updater(gemma), updater(gemma, checkpointing=True)
    value, grads = plain.gradient(batch)
    found, g_found = again.gradient(batch)
    assert found.item() == value.item()
    assert largest_relative_difference(grads, g_found) < 1e-6
    others = [plain.gradient(batch, number=1)]
    plain.step = 1
    others.append(plain.gradient(batch))
    plain.train = TrainSection(steps=1, seed=1)
    plain.step = 0
    others.append(plain.gradient(batch))
    assert len({value.item(), *(v.item() for v, _ in others)}) == 4  # another mask for each
    gemma.model.eval()
    assert summed_loss(gemma.text, batch).item() not in {value.item(), *(v.item() for v, _ in others)}


def updated(train: TrainSection, sizes: list[int]) -> dict[str, mx.array]:
    """Adapter weights after one update on six rows, split into micro-batches of the given sizes."""
    gemma = adapter()
    examples = rows()
    update = Updater(gemma.model, gemma.text, train, str)
    starts = np.cumsum([0, *sizes])
    done = update([collate(examples, [[i] for i in range(a, b)]) for a, b in pairwise(starts)], 1e-3)
    assert done.targets == sum(e.targets for e in examples)
    return lora.adapter_parameters(gemma.model)


SPLITS = ([1] * 6, [2, 4], [5, 1])


def test_accumulation_equals_one_batch() -> None:
    # T11: mlx-lm takes a mean of means. Adam's first update divides each gradient by its own size, so a gradient that
    # is all rounding error may move its weight by the whole rate: one in a thousand may, and one
    # in 8,000 does.
    train = TrainSection(steps=1, lr=1e-3)
    whole = updated(train, [6])
    for sizes in SPLITS:
        split = updated(train, sizes)
        far = sum((mx.abs(value - split[name]) >= 1e-6).sum().item() for name, value in whole.items())
        assert far < 0.001 * sum(value.size for value in whole.values())


def test_accumulation_equals_one_batch_with_plain_descent() -> None:
    # T11, without Adam's division: all weights, to 1e-6 of the largest in their tensor.
    train = TrainSection(steps=1, optimizer="sgd")
    whole = updated(train, [6])
    for sizes in SPLITS:
        assert largest_relative_difference(whole, updated(train, sizes)) < 1e-6


def test_a_last_partial_window_is_a_whole_update() -> None:
    # T11: divided by its own targets, not by those of a full window (mlx-lm leaves it out).
    examples = rows()
    moved = []
    for window in ([[0, 1]], [[0], [1]]):
        gemma = adapter()
        update = updater(gemma, optimizer="sgd", accumulate=3)
        done = update([collate(examples, [[r] for r in rows]) for rows in window], 1e-2)
        assert (done.skipped, done.targets) == (None, examples[0].targets + examples[1].targets)
        moved.append(lora.adapter_parameters(gemma.model))
    before = lora.adapter_parameters(adapter().model)
    assert largest_relative_difference(moved[0], moved[1]) < 1e-6
    assert largest_relative_difference(before, moved[0]) > 1e-5


RATES = {"adamw": 1e-3, "adam": 1e-3, "adafactor": 1e-3, "lion": 2e-4, "muon": 1e-3, "sgd": 1e-1}


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_every_optimiser_lowers_the_loss(name: str, kind: str) -> None:
    gemma = load("nano")
    mx.random.seed(1)
    lora.attach(gemma.model, spec(kind=kind))
    rate = RATES[name] * (0.1 if kind == "full" and name not in ("sgd", "muon") else 1)
    update = updater(gemma, optimizer=name, lr=rate, clip=1e9 if name == "sgd" else 1.0)
    batch = collate(rows(4), [[0], [1], [2], [3]])
    losses = [update([batch], rate).loss for _ in range(6)]
    assert losses[-1] < losses[0] - 0.02, losses
    trained = dict(tree_flatten(update.parameters))
    assert all(mx.array_equal(v, trained[k]) for k, v in tree_flatten(gemma.model.trainable_parameters()))


def test_lora_plus_moves_b_so_many_times_as_far() -> None:
    moved = []
    for times in (1.0, 16.0):
        gemma = adapter()
        before = lora.adapter_parameters(gemma.model)
        update = updater(gemma, optimizer="sgd", lora_plus=times, clip=1e9)
        update([collate(rows(), LAYOUTS["padded"])], 1e-2)
        moved.append({k: v - before[k] for k, v in lora.adapter_parameters(gemma.model).items()})
    for name, plain in moved[0].items():
        times = 16 if name.endswith("lora_b") else 1
        assert mx.abs(moved[1][name] - times * plain).max().item() < 1e-4 * times * mx.abs(plain).max().item(), name


@pytest.mark.parametrize("name", RATES)
def test_lora_plus_lowers_the_loss(name: str) -> None:
    gemma = load("nano")
    mx.random.seed(1)
    lora.attach(gemma.model, spec())
    rate = RATES[name] / 4
    update = updater(gemma, optimizer=name, lora_plus=4.0, clip=1e9 if name == "sgd" else 1.0)
    batch = collate(rows(4), [[0, 1, 2, 3]])
    losses = [update([batch], rate).loss for _ in range(6)]
    assert losses[-1] < losses[0] - 0.02, losses


def test_a_non_finite_update_is_skipped_and_named() -> None:
    # T14: one bad batch is permanent in mlx-lm (issue 1658).
    gemma = load("nano")
    lora.attach(gemma.model, spec())
    examples = rows(2)
    update = Updater(gemma.model, gemma.text, TrainSection(steps=1), lambda r: f"rows.jsonl:{r + 1}")
    before = lora.adapter_parameters(gemma.model)
    batch = collate(examples, [[0], [1]])
    poisoned = Batch(batch.layout, batch.target, batch.weight * mx.inf, batch.rows, batch.targets)
    for _ in range(PATIENCE - 1):
        assert update([poisoned], 1e-3).skipped
    after = lora.adapter_parameters(gemma.model)
    assert all(mx.array_equal(before[k], after[k]) for k in before)
    assert update.step == PATIENCE - 1  # a skipped update is one too, so that the rate goes on
    with pytest.raises(Exception, match=r"rows.jsonl:1, rows.jsonl:2"):
        update([poisoned], 1e-3)


@pytest.mark.parametrize("of", ["loss", "gradient"])
@pytest.mark.parametrize("micro", [[[[0], [1]], [[2], [3]]], [[[0, 1]], [[2, 3]]], [[[3, 1, 2, 0]]]])
def test_the_one_guilty_row_is_named(micro: list[list[list[int]]], of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # T14: among all rows of an update, packed or not.
    gemma, examples = adapter(), rows(4)
    bad = examples[2].tokens[0] = 29  # no other row has it

    def poisoned(text: Any, batch: Batch, **options: Any) -> mx.array:
        value = summed_loss(text, batch, **options)
        times = mx.where((batch.layout.tokens == bad).any(), mx.array(mx.inf), mx.array(1.0))
        return value * times if of == "loss" else mx.stop_gradient(value) + (value - mx.stop_gradient(value)) * times

    update = Updater(gemma.model, gemma.text, TrainSection(steps=1), lambda r: f"rows.jsonl:{r + 1}", examples)
    before = lora.adapter_parameters(gemma.model)
    with monkeypatch.context() as patch:
        patch.setattr(optimiser, "summed_loss", poisoned)
        done = update([collate(examples, rows) for rows in micro], 1e-3)
    assert done.skipped == "rows.jsonl:3"
    assert all(mx.array_equal(v, before[k]) for k, v in lora.adapter_parameters(gemma.model).items())
    assert update([collate(examples, rows) for rows in micro], 1e-3).skipped is None
    assert update.failures == 0


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
