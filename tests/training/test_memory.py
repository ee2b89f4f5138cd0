"""The predicted peak is within 15 % of the measured one, on a model of E2B's proportions, for every lever."""

from __future__ import annotations

import gc
from itertools import islice
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.quantise import quantise
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import AdapterSection, TrainSection
from mlx_gemma.training.batches import stream, updates_in
from mlx_gemma.training.memory import predicted_peak
from mlx_gemma.training.optimiser import Updater

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def small_e2b(**sizes: Any) -> Any:
    """Three layers with their own keys and values, four that share them, twice as wide."""
    from mlx_lm.models.gemma4_text import Model, ModelArgs

    types = [{"s": "sliding_attention", "f": "full_attention"}[c] for c in "ssfsssf"]
    shape = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 2, "head_dim": 32, "vocab_size": 4096}
    shape |= {"global_head_dim": 64, "hidden_size_per_layer_input": 32, "num_kv_shared_layers": 4} | sizes
    fixed = {"num_key_value_heads": 1, "use_double_wide_mlp": True, "final_logit_softcapping": 30.0}
    args = ModelArgs(**shape, **fixed, num_hidden_layers=7, layer_types=types, vocab_size_per_layer_input=4096)
    model = Model(args)
    model.set_dtype(mx.float32)
    return model


def documents(prompt: tuple[int, int], answer: tuple[int, int], count: int = 6) -> list[Example]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        asked, said = int(rng.integers(*prompt)), int(rng.integers(*answer))
        made.append(Example(rng.integers(3, 4096, asked + said).tolist(), [False] * asked + [True] * said))
    return made


MIXED, PROMPTS, ANSWERS = ((60, 200), (30, 300)), ((300, 600), (30, 150)), ((1, 4), (100, 300))


@pytest.mark.parametrize(
    ("sizes", "train", "adapter", "mix"),
    [
        ({}, {"batch": 3}, {"rank": 8}, MIXED),
        ({}, {"batch": 3, "checkpointing": True}, {"rank": 8}, MIXED),
        ({}, {"batch": 1, "layout": "packed", "length": 1024}, {"rank": 8}, MIXED),
        ({}, {"batch": 3}, {"rank": 8}, PROMPTS),
        ({}, {"batch": 3, "checkpointing": True}, {"rank": 8}, PROMPTS),
        ({}, {"batch": 3}, {"rank": 8}, ANSWERS),
        ({"num_attention_heads": 8}, {"batch": 3}, {"rank": 8}, MIXED),
        ({"vocab_size": 65536}, {"batch": 2}, {"rank": 8}, ((20, 60), (20, 60))),
        ({}, {"batch": 2, "accumulate": 2}, {"rank": 64}, ((20, 60), (20, 60))),
        ({}, {"batch": 3}, {"rank": 8, "kind": "dora"}, MIXED),
        ({}, {"batch": 3, "lr": 1e-5}, {"kind": "full"}, MIXED),
        ({}, {"batch": 3, "optimizer": "adafactor"}, {"rank": 64}, MIXED),
        ({}, {"batch": 3, "optimizer": "lion"}, {"rank": 64}, MIXED),
    ],
    ids=str,
)
def test_the_peak_is_predicted(
    sizes: dict[str, Any], train: dict[str, Any], adapter: dict[str, Any], mix: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    check(small_e2b(**sizes), train, adapter, documents(*mix))


@pytest.mark.parametrize(
    ("quantize", "embeddings"), [("affine4", "none"), ("nf4", "none"), ("none", "affine4"), ("affine8", "affine8")]
)
def test_the_peak_on_a_quantised_base(quantize: str, embeddings: str) -> None:
    model = small_e2b(hidden_size_per_layer_input=64)
    quantise(model, quantize, embeddings)
    check(model, {"batch": 3}, {"rank": 8}, documents(*MIXED))


def test_the_peak_of_full_training_in_bfloat16() -> None:
    """Masters in float32, activations and their products in bfloat16."""
    model = small_e2b()
    model.set_dtype(mx.bfloat16)
    check(model, {"batch": 2, "lr": 1e-5}, {"kind": "full"}, documents((20, 60), (20, 60)))


def check(model: Any, train: dict[str, Any], adapter: dict[str, Any], examples: list[Example]) -> None:
    section, recipe = AdapterSection(**adapter), TrainSection(epochs=1, **train)
    spec = lora.AdapterSpec(section.rank, 2.0 * section.rank, 0.0, TARGETS, kind=section.kind)
    attached = lora.attach(model, spec)
    mx.eval(model.parameters())
    model.train()
    update = Updater(model, model, recipe, str)
    gc.collect()
    mx.clear_cache()
    mx.reset_peak_memory()
    own = sum(v.nbytes for _, v in tree_flatten(model.parameters()))  # the moments are not there yet
    others = mx.get_active_memory() - own  # of other tests' fixtures
    lengths = [len(e.tokens) for e in examples]
    for batches in islice(stream(examples, recipe), 2 * updates_in(1, lengths, recipe)):  # the first has no moments yet
        update(batches, 1e-5)
    measured = mx.get_peak_memory() - others
    predicted = predicted_peak(model, recipe, section, examples, attached.parameters)
    assert predicted == pytest.approx(measured, rel=0.15)
