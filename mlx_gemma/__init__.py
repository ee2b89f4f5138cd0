"""mlx-gemma: fine-tune Gemma 4 with LoRA on Apple Silicon, and see what happened, token by token and row by row."""

__version__ = "0.1.0"
