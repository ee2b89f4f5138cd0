"""Do two artefacts compute the same function? Their logits over fixed conversations, side by side, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.layers import head
from mlx_gemma.gemma4.load import Gemma

Logits = np.ndarray[Any, np.dtype[np.float32]]  # [tokens, vocabulary]
CONVERSATIONS = (
    ("Write a function that adds two numbers.", "def add(a, b):\n    return a + b"),
    ("Print the numbers from 1 to 10, one on each line.", "for i in range(1, 11):\n    print(i)"),
    ("What does `len` return for a dictionary?", "The number of its keys."),
)


@dataclass(frozen=True)
class Difference:
    """Of two models' logits, over every position and token."""

    largest: float
    mean: float
    agreement: float  # share of positions with the same most probable token
    spread: float  # standard deviation of the reference's logits

    def __str__(self) -> str:
        return f"logit difference max {self.largest:.1e}, mean {self.mean:.1e}, same argmax {self.agreement:.3f}"


def conversations(gemma: Gemma) -> list[list[int]]:
    """Token ids of CONVERSATIONS in the model's own template; about 40 tokens each."""
    turns = ([{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in CONVERSATIONS)
    return [gemma.template.example(messages).tokens for messages in turns]


def logits(gemma: Gemma, sequences: Sequence[Sequence[int]]) -> Logits:
    """Soft-capped logits [tokens of all sequences, vocabulary]; 120 MB for CONVERSATIONS at a vocabulary of 262,144."""
    rows = []
    for tokens in sequences:
        out = head(gemma.text, gemma.text.model(mx.array(list(tokens), mx.int32)[None]))[0]
        mx.eval(out)
        rows.append(np.asarray(out))
    return np.concatenate(rows)


def difference(found: Logits, reference: Logits) -> Difference:
    """Compare two results of `logits` over the same sequences.

    Raises:
        ModelError: `found` holds NaN or infinity.
    """
    if not np.isfinite(found).all():
        raise ModelError("the logits are not finite", fix="check the adapter: its training may have diverged")
    gap = np.abs(found - reference)
    same = (found.argmax(-1) == reference.argmax(-1)).mean()
    return Difference(float(gap.max()), float(gap.mean()), float(same), float(reference.std()))


def load_adapter(gemma: Gemma, folder: Path) -> None:
    """`lora.load_adapter`, whichever class (multimodal, text-only) the adapter was trained on.

    Raises:
        ModelError: see `lora.load_adapter`.
    """
    weights: dict[str, mx.array] = mx.load(str(folder / lora.WEIGHTS))  # type: ignore[assignment]
    multimodal = any(name.startswith("language_model.") for name in weights)
    lora.load_adapter(_Multimodal(gemma.text) if multimodal else gemma.text, folder)
    mx.eval(gemma.model.parameters())
    gemma.model.eval()


class _Multimodal(nn.Module):  # type: ignore[misc]  # mlx has no types here
    """A text decoder under the name that mlx-lm's multimodal class gives it."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.language_model = text

    @property
    def layers(self) -> Any:
        return self.language_model.layers
