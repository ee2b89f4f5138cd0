"""Evaluation: how often a model's answers are bad, and in which way."""

from mlx_gemma import platform

platform.load_blas()  # before anything here imports mlx
