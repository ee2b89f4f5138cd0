"""Traps that other trainers of Gemma 4 fell into, and that no other test here is about.

The names T1 to T43 are those of docs/traps.md; the comments of the other tests use them too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.gemma4_text import Model, ModelArgs
from tiny_gemma4 import LINEARS, random_adapter, random_tokens

import mlx_gemma
from mlx_gemma import platform
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import TrainSection, read_recipe
from mlx_gemma.training import loss
from mlx_gemma.training.batches import collate, stream, updates_in
from mlx_gemma.training.loss import summed_loss
from mlx_gemma.training.optimiser import Updater

Models = Callable[[str], Path]
LAYOUTS = {"padded": [[0], [1], [2]], "packed": [[0, 1, 2]]}


@pytest.fixture(scope="module", params=["e2b", "e4b-text"])
def gemma(request: pytest.FixtureRequest, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Gemma:
    return random_adapter(models(request.param), tmp_path_factory.mktemp("adapter"))


def example(length: int, first: int, last: int) -> Example:
    """Random tokens, of which those from first to last (not included) are trained."""
    return Example(random_tokens(length), [first <= i < last for i in range(length)])


def loss_of(gemma: Gemma, examples: list[Example], rows: list[list[int]]) -> float:
    return platform.scalar(summed_loss(gemma.text, collate(examples, rows), gradient=False))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_neither_future_nor_neighbours_are_seen(gemma: Gemma, layout: str) -> None:
    # T1, T2: in mlx-vlm a padding mask took the causal mask's place: 3.93 on E2B where it is 7.49.
    examples, rows = [example(30, 5, 12), example(50, 20, 24), example(9, 3, 5)], LAYOUTS[layout]
    alone = sum(loss_of(gemma, [Example(e.tokens[:24], e.supervised[:24])], [[0]]) for e in examples)
    found = loss_of(gemma, examples, rows)
    assert found == pytest.approx(alone, rel=1e-5)
    for e in examples:  # what follows the last target
        last = max(i for i, on in enumerate(e.supervised) if on)
        e.tokens[last + 1 :] = [7] * (len(e.tokens) - last - 1)
    assert loss_of(gemma, examples, rows) == pytest.approx(found, rel=1e-6)
    examples[1].tokens[:] = random_tokens(51)[1:]
    rest = loss_of(gemma, examples, rows) - loss_of(gemma, [examples[1]], [[0]])
    assert rest == pytest.approx(found - loss_of(gemma, [example(50, 20, 24)], [[0]]), rel=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding_makes_no_nan(models: Models, layout: str, dtype: str) -> None:
    # T15: a row of nothing but padding behind a softmax is 0/0 in the backward pass (mlx-vlm 1052).
    gemma = load(str(models("e2b")))
    gemma.model.set_dtype(getattr(mx, dtype))
    lora.attach(gemma.model, lora.AdapterSpec(4, 8.0, 0.0, LINEARS))
    examples = [example(120, 20, 100), example(2, 1, 2), example(3, 1, 2)]
    done = Updater(gemma.model, gemma.text, TrainSection(steps=1), str)([collate(examples, LAYOUTS[layout])], 1e-3)
    assert done.skipped is None
    assert done.targets == 82
    assert np.isfinite([done.loss, done.norm]).all()


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_an_update_changes_no_dtype(models: Models, kind: Any) -> None:
    # T11: a bfloat16 gradient times a float32 scalar is float32, and so are the weights after it (unsloth-zoo 98d6f27).
    gemma = load(str(models("e2b")))
    gemma.model.set_dtype(mx.bfloat16)
    lora.attach(gemma.model, lora.AdapterSpec(4, 8.0, 0.0, LINEARS, kind=kind))
    before = {k: (v.dtype, np.asarray(v.astype(mx.float32))) for k, v in tree_flatten(gemma.model.parameters())}
    trained = set(dict(tree_flatten(gemma.model.trainable_parameters())))
    update = Updater(gemma.model, gemma.text, TrainSection(steps=1), str)
    examples = [example(40, 20, 40), example(30, 5, 30)]
    for _ in range(2):
        update([collate(examples, [[0]]), collate(examples, [[1]])], 1e-2)
    for name, value in tree_flatten(gemma.model.parameters()):
        dtype, old = before[name]
        assert value.dtype == dtype, name
        same = (np.asarray(value.astype(mx.float32)) == old).all()
        assert same or name in trained, f"{name} is frozen"  # T32: mlx-vlm trained the whole base after a reload
    assert {v.dtype for v in lora.adapter_parameters(gemma.model).values()} <= {mx.float32}


def test_a_bfloat16_model_s_loss_is_float32(models: Models) -> None:
    # T13: cross entropy in bfloat16 is off by up to 0.1 nats a token, and so coarse a sum by 8 at 1,500.
    gemma = load(str(models("e2b")))
    gemma.model.set_dtype(mx.bfloat16)
    examples = [example(160, 10, 160), example(90, 10, 90)]
    batch = collate(examples, [[0], [1]])
    found = summed_loss(gemma.text, batch)
    assert found.dtype == mx.float32
    gemma.model.set_dtype(mx.float32)  # the rounded weights
    wanted = platform.scalar(summed_loss(gemma.text, batch))
    assert abs(platform.scalar(found) - wanted) / batch.targets < 0.01


def test_the_logits_never_exist_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    # T12: at a vocabulary of 262,144 they are 1 MiB of float32 a position, and several times that in a backward pass.
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 64 * 16384)  # 64 positions a chunk
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_kv_shared_layers": 1}
    heads = {"num_attention_heads": 1, "head_dim": 16, "global_head_dim": 16, "hidden_size_per_layer_input": 4}
    model = Model(ModelArgs(**sizes, **heads, vocab_size=16384, layer_types=["full_attention"] * 2))
    lora.attach(model, lora.AdapterSpec(2, 4.0, 0.0, ("q_proj",)))
    mx.eval(model.parameters())
    peaks = []
    for count in (4, 16):
        batch = collate([example(138, 10, 138)] * count, [[i] for i in range(count)])
        mx.clear_cache()
        mx.reset_peak_memory()
        mx.eval(nn.value_and_grad(model, lambda b: summed_loss(model, b))(batch))
        peaks.append(mx.get_peak_memory())
    assert peaks[1] - peaks[0] < 0.25 * (16 - 4) * 128 * 4 * 16384


@pytest.mark.parametrize(("layout", "most"), [("padded", 160), ("packed", 40)])
def test_shapes_are_few(layout: Any, most: int) -> None:
    # T35: hundreds of compiled shapes exhaust Metal's resources in a long run (unsloth-zoo 918).
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(np.log(8), np.log(1000), (2000, 2))).astype(int) // 2 + 1
    examples = [Example([1] * (p + c), [False] * p + [True] * c) for p, c in sizes.tolist()]
    train = TrainSection(epochs=1, layout=layout, length=1024, batch=8)
    source, shapes = stream(examples, train), set()
    for _ in range(updates_in(1, [len(e.tokens) for e in examples], train)):
        shapes |= {tuple(a.shape for a in batch.arrays) for batch in next(source)}
    assert len(shapes) <= most, len(shapes)


def test_checkpointing_changes_no_class(gemma: Gemma) -> None:
    # T36: mlx-lm's grad_checkpoint replaces the layer class's __call__, for every model and once more at each call.
    layer = type(gemma.text.layers[0])
    before, batch = layer.__call__, collate([example(20, 5, 20)], [[0]])
    mx.eval(nn.value_and_grad(gemma.model, lambda b: summed_loss(gemma.text, b, checkpoint=True))(batch))
    assert layer.__call__ is before


def test_validation_is_of_every_row_and_the_adapter_alone_is_saved(tmp_path: Path) -> None:
    # T38: mlx-lm leaves out the rows behind the last whole batch, and weights batches alike. T39: what is saved is what
    # is trainable there, once 700 MB.
    answers = [f"```python\ndef f{i}(x):\n    return {'x + ' * 3 * i}x\n```" for i in range(5)]
    rows = [{"prompt": f"Write f{i}.", "completion": answer} for i, answer in enumerate(answers)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        "model: {name: nano}\ndata: {train: rows.jsonl, valid: rows.jsonl}\nfilter: {near_duplicates: keep}\n"
        "train: {steps: 1, lr: 1e-12, batch: 4}\nvalidation: {every: 1}\noutput: run\n"
    )
    folder = mlx_gemma.train(read_recipe(tmp_path / "recipe.yaml"))
    saved = mx.load(str(folder / lora.WEIGHTS))
    assert {name.rsplit(".", 1)[-1] for name in saved} == {"lora_a", "lora_b"}
    gemma = load("nano")
    users = [
        [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["completion"]}] for r in rows
    ]
    examples = [gemma.template.example(messages) for messages in users]
    wanted = sum(loss_of(gemma, [e], [[0]]) for e in examples) / sum(e.targets for e in examples)
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["valid_loss"] == pytest.approx(wanted, rel=1e-4)
