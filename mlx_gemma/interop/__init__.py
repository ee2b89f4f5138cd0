"""Other people's formats. An export reloads what it wrote and compares logits before it reports success."""

from mlx_gemma import platform

platform.load_blas()  # before anything here imports mlx
