"""Decoding: one loop, from which generation, traces and benchmarks are made."""

from mlx_gemma import platform

platform.load_blas()  # before anything here imports mlx
