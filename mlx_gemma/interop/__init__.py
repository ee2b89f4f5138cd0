"""Other people's formats. An export reloads what it wrote and compares logits before it reports success."""
