"""Which token of a trace is asked about, and against which rival."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.tracing.record import Candidate, Position, Trace


@dataclass(frozen=True)
class Question:
    """Why `token`, and not `rival`, behind the token ids of `context`?"""

    position: Position
    context: list[int]
    token: Candidate
    rival: Candidate


def question(
    gemma: Gemma, trace: Trace, *, at: int | None = None, token: str | None = None, instead: str | None = None
) -> Question:
    """Choose a position of a trace and the rival of its token.

    Args:
        at: the position's index; None: the first whose token is `token` (blanks aside), or the least certain one.
        instead: the rival's text, blanks aside where no candidate has it exactly; None: the most probable other one.

    Raises:
        UserError: both `at` and `token`, no such position, or no such candidate.
    """
    if at is not None and token is not None:
        raise UserError("both a position and a token", where="--at", fix="give one of --at and --token")
    if at is not None and at >= len(trace.positions):
        what = f"the answer has {len(trace.positions)} tokens"
        raise UserError(what, where="--at", fix=f"give 0 to {len(trace.positions) - 1}")
    if at is not None:
        position = trace.positions[at]
    elif token is not None:
        found = [p for p in trace.positions if token in (p.text, p.text.strip())]
        if not found:
            fix = "see the tokens: mlx-gemma trace; or give an answer that has it (--force)"
            raise UserError(f"no token of the answer is {token!r}", where="--token", fix=fix)
        position = found[0]
    else:
        position = min(trace.positions, key=lambda p: p.logprob)
    chosen = next(c for c in position.candidates if c.chosen)
    others = [c for c in position.candidates if not c.chosen]
    if instead is not None:
        exact = [c for c in others if c.text == instead] or [c for c in others if c.text.strip() == instead.strip()]
        if not exact:
            listed = ", ".join(repr(c.text) for c in others[:5])
            what = f"{instead!r} is not among the {len(others)} most probable rivals of {position.text!r}"
            raise UserError(what, where="--instead", fix=f"take one of {listed} …")
        others = exact
    context = [*trace.prompt_tokens, *(p.token for p in trace.positions[: position.index])]
    return Question(position, context, chosen, others[0])
