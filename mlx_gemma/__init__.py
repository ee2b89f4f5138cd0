"""mlx-gemma: fine-tune Gemma 4 with LoRA on Apple Silicon, and see what happened, token by token and row by row.

    import mlx_gemma
    gemma = mlx_gemma.load("google/gemma-4-E2B-it", adapter="runs/python3")
    print(mlx_gemma.generate(gemma, "Write a function that adds two numbers.").text)

The names below are loaded on first use, so that importing the package costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["generate", "load", "trace", "train"]

_HOME = {
    "load": "mlx_gemma.gemma4.load",
    "generate": "mlx_gemma.decode.generate",
    "trace": "mlx_gemma.tracing.record",
    "train": "mlx_gemma.training.loop",
}

if TYPE_CHECKING:
    from mlx_gemma.decode.generate import generate
    from mlx_gemma.gemma4.load import load
    from mlx_gemma.tracing.record import trace
    from mlx_gemma.training.loop import train


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mlx_gemma' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
