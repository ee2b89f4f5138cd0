"""Measurements, each beside its rival in the same run."""

from mlx_gemma import platform

platform.load_blas()  # before anything here imports mlx
