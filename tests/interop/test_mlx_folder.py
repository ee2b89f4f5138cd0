"""The mlx form is judged by mlx-lm: its loader takes the folder, and computes what base + adapter computes here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from logits import our_logits, reference_logits
from mlx_lm.utils import load as mlx_lm_load
from tiny_gemma4 import random_adapter, random_tokens

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.load import load
from mlx_gemma.gemma4.quantise import MODES
from mlx_gemma.interop import mlx_folder
from mlx_gemma.interop.export import MOST_OF_EFFECT, export

Models = Callable[[str], Path]
TOKENS = random_tokens(60)


def mlx_lm_logits(folder: Path) -> np.ndarray:
    model, tokenizer = mlx_lm_load(str(folder))
    assert tokenizer.encode("x")
    return np.asarray(model(mx.array([TOKENS]))[0].astype(mx.float32))


@pytest.mark.parametrize("name", ["nano", "e2b", "e2b-text", "e2b-sharded", "e4b"])
def test_mlx_lm_computes_base_plus_adapter(models: Models, tmp_path: Path, name: str) -> None:
    adapted = our_logits(random_adapter(models(name), tmp_path / "run"), TOKENS)
    done = export(tmp_path / "run", "mlx", tmp_path / "out", dtype="F32")
    found = mlx_lm_logits(done.path)
    print(f"{name}: mean {np.abs(found - adapted).mean():.1e} of {adapted.std():.1e}")
    assert np.abs(found - adapted).mean() < 1e-5 * adapted.std()
    assert np.abs(reference_logits(done.path, TOKENS) - adapted).mean() < 1e-5 * adapted.std()  # transformers too
    assert done.survived == pytest.approx(1, abs=1e-4)
    assert done.rows == 0


@pytest.mark.parametrize("quantize", mlx_folder.QUANTISATIONS)
@pytest.mark.parametrize("name", ["wide", "wide-bf16"])
def test_quantised(models: Models, tmp_path: Path, name: str, quantize: str) -> None:
    """The arrays are those that quantising in memory gives, and mlx-lm computes with them what we do."""
    random_adapter(models(name), tmp_path / "run")
    done = export(tmp_path / "run", "mlx", tmp_path / "out", quantize=quantize)
    print(f"{name} {quantize}: {done.survived:.3f} of the effect survives, gap {done.gap.mean / done.gap.spread:.2f}")
    bits = MODES[quantize].bits
    assert (0.9 if bits > 4 else MOST_OF_EFFECT) < done.survived < 1.1  # a random model is ill conditioned
    config = json.loads((done.path / "config.json").read_text())
    assert config["model_type"] == "gemma4_text"
    assert set(config["quantization"]) == {"group_size", "bits", "mode"}
    found, ours = mlx_lm_logits(done.path), our_logits(load(str(done.path)), TOKENS)
    assert np.abs(found - ours).mean() < (1e-3 if name == "wide" else 0.1) * ours.std()
    base = load(str(models(name)), quantize=quantize, quantize_embeddings=quantize).text.model.embed_tokens
    held = load(str(done.path)).text.model.embed_tokens
    assert mx.array_equal(held.weight, base.weight)
    assert mx.array_equal(held.scales, base.scales) or name == "wide-bf16"  # loaded in float32, rounded there


def test_an_adapter_below_the_step_of_the_quantisation_is_refused(models: Models, tmp_path: Path) -> None:
    random_adapter(models("wide"), tmp_path / "run", size=1e-4)
    with pytest.raises(ModelError, match=r"-?\d+% of the adapter's effect survives the rounding.*; .*--force"):
        export(tmp_path / "run", "mlx", tmp_path / "out", quantize="affine4")
    assert not (tmp_path / "out").exists()
    done = export(tmp_path / "run", "mlx", tmp_path / "out", quantize="affine4", force=True)
    assert done.survived < 0.5


@pytest.mark.parametrize(("mode", "multiple"), [("affine4", 64), ("nvfp4", 32)])
def test_widths_that_the_mode_does_not_divide(tmp_path: Path, mode: str, multiple: int) -> None:
    random_adapter("nano", tmp_path / "run", size=0.01)
    with pytest.raises(
        ModelError, match=f"{mode} needs widths that are multiples of {multiple}, .*112.*possible .* none"
    ):
        export(tmp_path / "run", "mlx", tmp_path / "out", quantize=mode)
    assert not (tmp_path / "out").exists()
