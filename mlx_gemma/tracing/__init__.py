"""Traces: what the model thought of each token, and of its rivals."""

from mlx_gemma import platform

platform.load_blas()  # before anything here imports mlx
