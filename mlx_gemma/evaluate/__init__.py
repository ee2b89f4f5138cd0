"""Evaluation: how often a model's answers are bad, and in which way."""
