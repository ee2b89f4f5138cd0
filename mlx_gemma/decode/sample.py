"""Choosing the next token: greedy, or sampled with temperature, top-k and top-p from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from mlx_gemma.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy; then the rest has no effect.

    Raises:
        UserError: a value out of its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    seed: int = 0

    def __post_init__(self) -> None:
        for ok, what, fix in (
            (0 <= self.temperature <= 10, f"temperature {self.temperature}", "give 0 (greedy) to 10"),
            (0 < self.top_p <= 1, f"top-p {self.top_p}", "give a value over 0, at most 1"),
            (self.top_k >= 0, f"top-k {self.top_k}", "give 0 (off) or more"),
            (0 <= self.seed < 2**64, f"seed {self.seed}", "give 0 or more, below 2^64"),
        ):
            if not ok:
                raise UserError(f"{what} is out of range", fix=fix)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def key(self) -> mx.array:
        key: mx.array = mx.random.key(self.seed)
        return key

    def choose(self, logits: mx.array, key: mx.array) -> mx.array:
        """The next token, int32 scalar, from float32 logits [V]."""
        return mx.argmax(logits) if self.greedy else mx.random.categorical(self.distribution(logits), key=key)

    def distribution(self, logits: mx.array) -> mx.array:
        """Log-weights [V] that are sampled from: tempered; -inf outside of top-k and top-p (applied in this order)."""
        logits = logits / self.temperature
        if 0 < self.top_k < logits.size:
            least = mx.sort(logits)[-self.top_k]
            logits = mx.where(logits < least, -mx.inf, logits)
        if self.top_p < 1:
            order = mx.argsort(-logits)
            p = mx.softmax(logits[order])
            # A token stays if the ones before it do not reach top_p already; so the first always stays.
            cut = mx.where(mx.cumsum(p) - p < self.top_p, logits[order], -mx.inf)
            logits = mx.put_along_axis(logits, order, cut, axis=-1)
        return logits
