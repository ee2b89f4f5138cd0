"""Training: batches, loss, the loop, and what it leaves behind."""

from mlx_gemma import platform

platform.load_blas()  # before anything here imports mlx
