"""From a token of a trace to the training rows behind it: what the data says, what caused it, and the proof."""

from mlx_gemma import platform

platform.load_blas()  # before anything here imports mlx
