"""Two saved traces of one prompt, token by token: has what the model thinks changed? For a test in CI."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_gemma.errors import UserError
from mlx_gemma.tracing.record import Position, Trace


@dataclass(frozen=True)
class Moved:
    """One position in both traces, which have the same tokens before it."""

    a: Position
    b: Position

    @property
    def change(self) -> float:
        """The largest change of a listed log-probability, in nats; of a token that one trace lists alone, at least."""
        return max(_change(self.a, self.b), _change(self.b, self.a))

    @property
    def flipped(self) -> bool:
        """Whether another token is the most probable."""
        return self.a.candidates[0].token != self.b.candidates[0].token

    @property
    def unknown(self) -> bool:
        """Whether it is, and a trace does not tell by how much."""
        best = (self.a.candidates[0].token, self.b.candidates[0].token)
        return self.flipped and not all({c.token for c in p.candidates} >= set(best) for p in (self.a, self.b))


def _change(one: Position, other: Position) -> float:
    """What the other trace does not list is no more probable than the least of what it does."""
    listed = {c.token: c.logprob for c in other.candidates}
    least = min(listed.values())
    return max(abs(c.logprob - listed[c.token]) if c.token in listed else c.logprob - least for c in one.candidates)


@dataclass(frozen=True)
class Difference:
    """`common`: positions behind the same tokens; `parted`: where the answers part, the last of these, or None."""

    common: list[Moved]
    parted: Moved | None
    lengths: tuple[int, int]

    @property
    def largest(self) -> Moved:
        return max(self.common, key=lambda m: m.change)

    @property
    def flips(self) -> list[Moved]:
        return [m for m in self.common if m.flipped]

    def within(self, tolerance: float) -> bool:
        """Whether the answers are the same, and every listed log-probability within so many nats."""
        same = self.parted is None and self.lengths[0] == self.lengths[1]
        return same and self.largest.change <= tolerance and not any(m.unknown for m in self.common)


def difference(a: Trace, b: Trace) -> Difference:
    """Compare two traces of the same prompt.

    Raises:
        UserError: their prompts differ, or one holds no token.
    """
    if a.prompt_tokens != b.prompt_tokens:
        fix = "save both from one prompt, or compare two prompts with: mlx-gemma trace compare"
        raise UserError("they are of different prompts, or of models with different templates", fix=fix)
    if not a.positions or not b.positions:
        raise UserError("a trace without a token", fix="save it again with --max-tokens over 0")
    common: list[Moved] = []
    for one, other in zip(a.positions, b.positions, strict=False):
        common.append(Moved(one, other))
        if one.token != other.token:
            return Difference(common, common[-1], (len(a.positions), len(b.positions)))
    return Difference(common, None, (len(a.positions), len(b.positions)))
