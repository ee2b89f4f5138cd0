"""What the model would have written had another token come: `branches(gemma, trace)`.

The answer is walked once with a cache; at every fork a copy of it goes on with the other token, greedily. So the prompt
and the answer are computed once, however many branches there are.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from mlx_gemma.decode.generate import decode
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.decode.scores import states
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.tracing.record import Candidate, Position, Trace


@dataclass(frozen=True)
class Branch:
    """Another token and the greedy continuation from it.

    Attributes:
        position: index in `trace.positions` of the token it stands instead of.
        alternative: the other token, as the trace has it.
        continuation: the tokens behind it, each the most probable one; a stop token, if it came, is the last.
        text: alternative and continuation, decoded together.
        finish: `stop`, or `length` (cut).
    """

    position: int
    alternative: Candidate
    continuation: list[Candidate]
    text: str
    finish: str

    @property
    def logprob(self) -> float:
        """Joint log-probability of the continuation, given the alternative, in nats; 0 if there is none."""
        return math.fsum(c.logprob for c in self.continuation)


def branches(gemma: Gemma, trace: Trace, most: int = 40, length: int = 24, least: float = 0.02) -> list[Branch]:
    """Continue the alternatives of an answer, the most probable ones first.

    Args:
        gemma: the model that the trace is of.
        most: alternatives that are continued, at most.
        length: tokens of a continuation, at most; fewer where a stop token comes or the context ends.
        least: probability below which an alternative is left alone.

    Raises:
        UserError: `most`, `length` or `least` is out of range.

    Cost: one forward pass over prompt and answer, and `length` decoding steps a branch, each branch by itself; one copy
    of the cache at a time.
    """
    for ok, what, fix in (
        (most >= 1, f"{most} branches", "give 1 or more"),
        (length >= 1, f"a branch length of {length} tokens", "give 1 or more"),
        (0 <= least <= 1, f"least probability {least}", "give 0 to 1"),
    ):
        if not ok:
            raise UserError(f"{what} is out of range", fix=fix)
    rivals = [(p, c) for p in trace.positions for c in p.candidates if not c.chosen and c.probability >= least]
    rivals = sorted(rivals, key=lambda pair: -pair[1].logprob)[:most]
    tokens = [*trace.prompt_tokens, *(p.token for p in trace.positions)]
    cache, held = gemma.text.make_cache(), 0
    found: dict[tuple[int, int], Branch] = {}
    for p, c in sorted(rivals, key=lambda pair: pair[0].index):
        end = len(trace.prompt_tokens) + p.index
        for _ in states(gemma.text, tokens[held:end], end - held, cache):
            pass  # asked for no state, it only fills the cache
        held = end
        found[p.index, c.token] = _branch(gemma, p, c, cache, min(length, gemma.context - end - 1))
    return [found[p.index, c.token] for p, c in rivals]


def _branch(gemma: Gemma, position: Position, alternative: Candidate, cache: list[object], length: int) -> Branch:
    out: list[Candidate] = []
    finish = "stop" if alternative.token in gemma.stop_tokens else "length"
    if finish == "length" and length > 0:
        for step in decode(gemma, [alternative.token], Sampling(), length, top=1, cache=copy.deepcopy(cache)):
            assert step.scores is not None
            out.append(Candidate(step.token, gemma.template.decode([step.token]), step.scores.logprob, True))
            if step.token in gemma.stop_tokens:
                finish = "stop"
                break
    text = gemma.template.decode([alternative.token, *(c.token for c in out)])
    return Branch(position.index, alternative, out, text, finish)
