"""`trace(gemma, prompt)`: an answer with every token's probability and its rivals kept.

All figures are the model's own distribution, before temperature, top-p and top-k: soft cap and log-softmax in float32
(see `decode.scores`). What sampling makes of them stands beside, as `drawn`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlx_gemma.decode.generate import as_messages, check_text, decode, prompt_tokens
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.decode.scores import Scores, forced
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.gemma4.template import ChatTemplate, Message

MOST = 100


@dataclass(frozen=True)
class Candidate:
    """A token that could have come here. `chosen` marks the one that did."""

    token: int
    text: str
    logprob: float
    chosen: bool
    drawn: float | None = None  # probability that sampling draws it; None where the choice is greedy or given

    @property
    def probability(self) -> float:
        return math.exp(self.logprob)


@dataclass(frozen=True)
class Position:
    """One token. `candidates` are sorted, best first; the one that came is always among them."""

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

    @property
    def drawn(self) -> float | None:
        return next(c.drawn for c in self.candidates if c.chosen)


@dataclass(frozen=True)
class Trace:
    """A traced answer; `text` is decoded as a whole, as a character may span several tokens.

    Attributes:
        prompt_tokens: the rendered conversation.
        positions: of the answer; the stop token, if it came, is the last.
        finish: `stop`, `length` (cut), or `given` (a text that was forced).
        prompt: of the prompt's own tokens but the first, where they were asked for; their index counts from -1 down.
        model, adapter, messages, sampling: what was asked of what.
    """

    prompt_tokens: list[int]
    positions: list[Position]
    text: str
    finish: str = "stop"
    prompt: list[Position] = field(default_factory=list)
    model: str = ""
    adapter: str | None = None
    messages: list[Message] = field(default_factory=list)
    sampling: Sampling = field(default_factory=Sampling)


def trace(
    gemma: Gemma,
    prompt: str | Sequence[Message],
    *,
    system: str | None = None,
    sampling: Sampling | None = None,
    max_tokens: int = 128,
    top: int = 10,
    force: str | None = None,
    prompt_too: bool = False,
) -> Trace:
    """Answer a prompt and keep the probabilities.

    Args:
        force: score this answer, and the stop token behind it, instead of generating one: a single forward pass.
        prompt_too: score the prompt's own tokens as well.

    Raises:
        UserError: `top` is out of range, or `force` is empty or too long; see also `prompt_tokens`.
        ModelError: the probabilities are not finite.
    """
    check_top(gemma, top)
    messages = as_messages(prompt, system) if isinstance(prompt, str) else list(prompt)
    tokens = prompt_tokens(gemma, messages)
    sampling = sampling or Sampling()
    positions: list[Position] = []
    finish = "length" if force is None else "given"
    if force is not None:
        answer = answer_tokens(gemma, force, len(tokens))
        scores = forced(gemma.text, [*tokens, *answer], len(tokens), top)
        positions = [_position(gemma.template, i, *pair) for i, pair in enumerate(zip(answer, scores, strict=True))]
    else:
        for step in decode(gemma, tokens, sampling, min(max_tokens, gemma.context - len(tokens)), top):
            assert step.scores is not None
            positions.append(_position(gemma.template, len(positions), step.token, step.scores))
            if step.token in gemma.stop_tokens:
                finish = "stop"
                break
    before = []
    if prompt_too:
        scores = forced(gemma.text, tokens, 1, top)
        numbered = enumerate(zip(tokens[1:], scores, strict=True), 1 - len(tokens))
        before = [_position(gemma.template, i, *pair) for i, pair in numbered]
    if not all(math.isfinite(p.logprob) and math.isfinite(p.entropy) for p in positions):
        raise ModelError("the probabilities are not finite", fix="check the adapter: its training may have diverged")
    text = gemma.template.decode([p.token for p in positions])
    adapter = str(gemma.adapter) if gemma.adapter else None
    return Trace(tokens, positions, text, finish, before, gemma.checkpoint.name, adapter, messages, sampling)


def check_top(gemma: Gemma, top: int) -> None:
    """Raises UserError: more candidates than there are tokens, or than is of use."""
    most = min(MOST, int(gemma.text.args.vocab_size))
    if not 1 <= top <= most:
        raise UserError(f"top {top} is out of range", fix=f"give 1 to {most}")


def answer_tokens(gemma: Gemma, text: str, before: int) -> list[int]:
    """Token ids of a model's turn and its <turn|>, as training has them, behind a prompt of so many tokens.

    Raises:
        UserError: nothing in it, a control token in it, or more than the context holds.
    """
    if not text:
        raise UserError("the given answer is empty", where="--force", fix="give some text")
    check_text(text, "--force")
    for control in gemma.template.control_tokens:
        if control in text:
            raise UserError(f"the given answer contains the control token {control}", where="--force", fix="remove it")
    tokens = [*gemma.template.encode(text), gemma.template.end]
    if before + len(tokens) > gemma.context:
        what = f"prompt and answer have {before + len(tokens)} tokens, the model's context {gemma.context}"
        raise UserError(what, where="--force", fix="shorten it")
    return tokens


def _position(template: ChatTemplate, index: int, token: int, scores: Scores) -> Position:
    # Not by rank: of equal logits at the K-th place, any may be in the list.
    listed = any(rival == token for rival, _ in scores.top)
    rivals = scores.top if listed else [*scores.top, (token, scores.logprob)]
    candidates = [Candidate(t, template.decode([t]), p, t == token, scores.drawn.get(t)) for t, p in rivals]
    return Position(index, token, template.decode([token]), scores.logprob, scores.rank, scores.entropy, candidates)
