"""`trace(gemma, prompt)`: generation with every token's probability and its rivals kept.

All figures are the model's own distribution, before temperature, top-p and top-k: the head's product in the weights'
dtype, soft cap and log-softmax in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_gemma.decode.generate import as_messages, decode, prompt_tokens
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.gemma4.template import Message

MOST = 100


@dataclass(frozen=True)
class Candidate:
    """A token that could have come here. `chosen` marks the one that did."""

    token: int
    text: str
    logprob: float
    chosen: bool

    @property
    def probability(self) -> float:
        return math.exp(self.logprob)


@dataclass(frozen=True)
class Position:
    """One generated token. `candidates` are sorted, best first; the chosen one is always among them."""

    index: int
    token: int
    text: str
    logprob: float
    rank: int
    entropy: float
    candidates: list[Candidate]

    @property
    def probability(self) -> float:
        return math.exp(self.logprob)

    @property
    def margin(self) -> float:
        """Probability of the best candidate less that of the second."""
        p = [c.probability for c in self.candidates[:2]]
        return p[0] - p[1] if len(p) == 2 else p[0]


@dataclass(frozen=True)
class Trace:
    """A traced answer; `text` is decoded as a whole, as a character may span several tokens."""

    prompt_tokens: list[int]
    positions: list[Position]
    text: str


def trace(
    gemma: Gemma,
    prompt: str | Sequence[Message],
    *,
    system: str | None = None,
    sampling: Sampling | None = None,
    max_tokens: int = 128,
    top: int = 10,
) -> Trace:
    """Answer a prompt and keep the probabilities. The stop token, if it came, is the last position.

    Raises:
        UserError: `top` out of range; see also `prompt_tokens`.
    """
    vocabulary = int(gemma.text.args.vocab_size)
    if not 1 <= top <= min(MOST, vocabulary):
        raise UserError(f"top {top} is out of range", fix=f"give 1 to {min(MOST, vocabulary)}")
    messages = as_messages(prompt, system) if isinstance(prompt, str) else prompt
    tokens = prompt_tokens(gemma, messages)
    positions: list[Position] = []
    for step in decode(gemma, tokens, sampling or Sampling(), min(max_tokens, gemma.context - len(tokens)), top):
        scores = step.scores
        assert scores is not None
        # Not by rank: of equal logits at the K-th place, any may be in the list.
        listed = any(token == step.token for token, _ in scores.top)
        rivals = scores.top if listed else [*scores.top, (step.token, scores.logprob)]
        candidates = [Candidate(t, gemma.template.decode([t]), p, t == step.token) for t, p in rivals]
        text = gemma.template.decode([step.token])
        positions.append(
            Position(len(positions), step.token, text, scores.logprob, scores.rank, scores.entropy, candidates)
        )
        if step.token in gemma.stop_tokens:
            break
    return Trace(tokens, positions, gemma.template.decode([p.token for p in positions]))
