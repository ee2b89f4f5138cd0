"""Traces: what the model thought of each token, and of its rivals."""
