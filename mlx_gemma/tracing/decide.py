"""Decision points: how probable competing continuations are, at the place where they part.

The probability that an answer goes on with a text is a sum over all ways to write it in tokens, and over all tokens
that reach beyond its end (`print` followed by `(` or by `("`): exact up to `LEAST`, whatever tokens the answer has.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_gemma.decode.generate import check_text
from mlx_gemma.decode.scores import FORWARD, exact, forced
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.layers import head
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.gemma4.template import ChatTemplate
from mlx_gemma.tracing.record import Trace

LEAST = 1e-6  # a way to write a text's beginning that is so much less probable than the best one is not followed
MOST = 64  # bytes of a continuation


@dataclass(frozen=True)
class Continuation:
    """A text, and how probable it is.

    Attributes:
        probability: that the answer goes on with it at the decision point, what all continuations share being given.
        joint: the same with what they share, from the last token before.
        tokens: the most probable way to write it, the last token perhaps reaching beyond its end.
    """

    text: str
    probability: float
    joint: float
    tokens: list[str]


@dataclass(frozen=True)
class Decision:
    """`index`: the position of the first token that is decided; `shared`: what all continuations begin with."""

    index: int
    before: str
    shared: str
    continuations: list[Continuation]


def check(texts: Sequence[str], template: ChatTemplate) -> None:
    """Raises UserError: fewer than two texts, one twice, empty, long or no text, or one that begins another."""
    if len(texts) < 2 or len(set(texts)) < len(texts) or not all(texts):
        raise UserError("a decision is between two texts or more", where="--decide", fix="give each once, none empty")
    for one in texts:
        check_text(one, "--decide")
        if any(control in one for control in template.control_tokens):
            raise UserError(f"{one!r} holds a control token", where="--decide", fix="give text")
        if other := next((t for t in texts if t != one and t.startswith(one)), None):
            what = f"{other!r} begins with {one!r}, so both may happen"
            raise UserError(what, where="--decide", fix="give texts that exclude each other")
        if len(one.encode()) > MOST:
            raise UserError(f"a continuation of over {MOST} bytes", where="--decide", fix="give where they part")


def place(tokens: Sequence[int], texts: Sequence[str], template: ChatTemplate) -> tuple[int, bytes] | None:
    """Where in an answer, token by token, the first of the texts stands: the index of the token that it begins in, and
    what of that token is before it. None where the answer has none of them."""
    pieces = [template.vocabulary.bytes_of(token) or b"" for token in tokens]
    answer = b"".join(pieces)
    found = [at for text in texts if (at := answer.find(text.encode())) >= 0]
    start = 0
    for index, piece in enumerate(pieces if found else ()):
        if start + len(piece) > min(found):
            return index, answer[start : min(found)]
        start += len(piece)
    return None


def nowhere(texts: Sequence[str]) -> UserError:
    what = f"none of {', '.join(map(repr, texts))} is in the answer"
    return UserError(what, where="--decide", fix="give an answer that holds one (--force), or other texts")


def decide(gemma: Gemma, trace: Trace, texts: Sequence[str]) -> Decision:
    """Follow competing texts from where the first of them stands in a traced answer.

    Raises:
        UserError: see `check`; or none of them is in the answer.

    Cost: a forward pass over prompt and answer up to there, and one token for every beginning of each text in tokens
    that is followed: a few for probable texts, some fifty for improbable ones of 20 bytes.
    """
    check(texts, gemma.template)
    tokens = [p.token for p in trace.positions]
    if (found := place(tokens, texts, gemma.template)) is None:
        raise nowhere(texts)
    index, lead = found
    before = gemma.template.decode(tokens[:index])
    return Decision(index, before, *follow(gemma, [*trace.prompt_tokens, *tokens[:index]], texts, lead))


def follow(
    gemma: Gemma, context: Sequence[int], texts: Sequence[str], lead: bytes = b""
) -> tuple[str, list[Continuation]]:
    """What the texts share, and each with its probability, behind the tokens of a context and some bytes `lead`."""
    shared = lead + common(texts).encode()
    start = _Node.behind(gemma, context)
    given = _probability(gemma, start, shared).total if shared else 1.0
    out = []
    for text in texts:
        sum_ = _probability(gemma, start, lead + text.encode())
        pieces = [gemma.template.decode([t]) for t in sum_.best]
        out.append(Continuation(text, sum_.total / given if given else 0.0, sum_.total, pieces))
    return shared.decode("utf8", "replace"), out


def joint(gemma: Gemma, context: Sequence[int], tokens: Sequence[int]) -> float:
    """The probability of these very tokens behind a context."""
    scores = forced(gemma.text, [*context, *tokens], len(context), 1)
    return math.exp(math.fsum(s.logprob for s in scores))


def common(texts: Sequence[str]) -> str:
    """What all of them begin with."""
    same = takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return "".join(column[0] for column in same)


@dataclass
class _Node:
    """A beginning of the text in tokens: the model's distribution behind it, and the cache to go on from."""

    logprobs: np.ndarray[Any, np.dtype[np.float32]]  # [V]
    cache: Any

    @classmethod
    def behind(cls, gemma: Gemma, tokens: Sequence[int], cache: Any = None) -> _Node:
        text = gemma.text
        cache = text.make_cache() if cache is None else cache
        ids = mx.array(list(tokens), mx.int32)
        for i in range(0, len(tokens) - 1, FORWARD):
            text.model(ids[None, i : min(i + FORWARD, len(tokens) - 1)], cache=cache)
            mx.eval([c.state for c in cache])
        hidden = text.model(ids[None, -1:], cache=cache)[0]
        logits = head(text, hidden)
        logits = exact(text, hidden, logits, mx.argpartition(-logits, kth=99, axis=-1)[:, :100])
        logprobs = (logits - mx.logsumexp(logits, axis=-1, keepdims=True))[0]
        mx.eval(logprobs, [c.state for c in cache])
        return cls(np.array(logprobs), cache)


@dataclass
class _Sum:
    total: float = 0.0
    best: tuple[int, ...] = ()
    most: float = -math.inf


def _probability(gemma: Gemma, start: _Node, text: bytes) -> _Sum:
    """That the answer goes on with `text`, over all ways to write it, beginnings of equal length against each other."""
    vocabulary, found = gemma.template.vocabulary, _Sum()
    waiting: dict[int, list[tuple[float, tuple[int, ...], _Node]]] = {0: [(0.0, (), start)]}
    for offset in range(len(text)):
        ways, rest = waiting.pop(offset, []), text[offset:]
        least = max((logprob for logprob, _, _ in ways), default=0.0) + math.log(LEAST)
        for logprob, path, before in ways:
            if logprob < least:
                continue
            node = _Node.behind(gemma, path[-1:], copy.deepcopy(before.cache)) if path else start
            if reaching := vocabulary.reaching(rest):
                values = logprob + node.logprobs[reaching].astype(np.float64)
                found.total += float(np.exp(values).sum())
                if values.max() > found.most:
                    found.most, found.best = float(values.max()), (*path, reaching[int(values.argmax())])
            for token, size in vocabulary.within(rest):
                so_far = logprob + float(node.logprobs[token])
                waiting.setdefault(offset + size, []).append((so_far, (*path, token), node))
    return found
