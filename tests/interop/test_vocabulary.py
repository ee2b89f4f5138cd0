"""The arrows again at Gemma's own vocabulary of 262,144: transformers, PEFT and mlx-lm compute what is computed here.

tests/llama has the one to llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from logits import our_logits, reference_logits
from their_adapters import load_peft, peft_logits
from tiny_gemma4 import random_adapter

from mlx_gemma.gemma4.load import load
from mlx_gemma.interop.export import export
from mlx_gemma.interop.programs import mlx_lm_model

Models = Callable[[str], Path]
TOKENS = np.random.default_rng(0).integers(0, 262_144, 24).tolist()


@pytest.fixture
def run(models: Models, tmp_path: Path) -> Path:
    random_adapter(models("vocabulary"), tmp_path / "run")
    return tmp_path / "run"


def test_hugging_face_both_ways(models: Models, run: Path) -> None:
    base = models("vocabulary")
    before = our_logits(load(str(base)), TOKENS)
    assert np.abs(reference_logits(base, TOKENS) - before).max() < 1e-3
    adapted = our_logits(load(str(run)), TOKENS)
    out = export(run, "hf").path
    assert np.abs(reference_logits(out, TOKENS) - adapted).mean() < 1e-5 * adapted.std()
    assert np.abs(adapted - before).mean() > 0.1 * adapted.std()


def test_peft(models: Models, run: Path) -> None:
    adapted = our_logits(load(str(run)), TOKENS)
    theirs = peft_logits(load_peft(models("vocabulary"), export(run, "peft").path), TOKENS)
    assert np.abs(theirs - adapted).mean() < 1e-5 * adapted.std()


def test_mlx_lm(run: Path) -> None:
    adapted = our_logits(load(str(run)), TOKENS)
    text = mlx_lm_model(export(run, "mlx").path)
    theirs = np.asarray(text(mx.array([TOKENS]))[0].astype(mx.float32))
    assert np.abs(theirs - adapted).mean() < 1e-5 * adapted.std()
