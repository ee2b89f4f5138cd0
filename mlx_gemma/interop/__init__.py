"""Other people's formats. Each export proves itself: it reloads what it wrote and compares logits before it reports success."""
