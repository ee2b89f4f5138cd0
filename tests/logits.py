"""Logits of one checkpoint from both sides: transformers' and ours, float32, no cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch

from mlx_gemma.gemma4.load import Gemma


def reference_logits(folder: Path, tokens: list[int]) -> np.ndarray:
    """transformers' logits [length, vocabulary] in float32, from AutoModelForCausalLM, its loading report clean."""
    model = reference_model(folder)
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


def reference_model(folder: Path) -> Any:
    """transformers' own model in float32; fails on missing, unexpected or mismatched keys, which it only reports."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # its threads spin: with two on two busy cores, small models run 17 times slower
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


def our_logits(gemma: Gemma, tokens: list[int]) -> np.ndarray:
    """Our logits [length, vocabulary], float32, without a cache."""
    return np.asarray(gemma.model(mx.array([tokens]))[0].astype(mx.float32))
