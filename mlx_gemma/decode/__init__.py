"""Decoding: one loop, from which generation, traces and benchmarks are made."""
