"""The only package that knows Gemma 4: loading, the chat template, adapters."""

from mlx_gemma import platform

platform.load_blas()  # before anything here imports mlx
