"""What the data says at a place: how the end of a context goes on in the training set, and how often.

    ladder = continuations(corpus, template, context)     # the context: every token id before the one in question
    print(sentence(ladder, token, probability))
    # after `print(` the data has `"` in 53 % of 412 places; the model says 55.3 %

Only places where a training target follows count: what stands in a prompt was never learned. Every suffix of the
context is a rung of the ladder; measured in benchmarks/lexical.jsonl.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mlx_gemma.blame.corpus import Corpus
from mlx_gemma.blame.index import CHUNK, DEPTH, LEARNED, NO_TOKEN, Ids, Lengths, ranges, shared
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.template import ChatTemplate

ENOUGH = 20  # places, for a share of them to mean something
SOME = 1 << 16  # places that are read at once
SHOWN = 40  # characters of a context


@dataclass(frozen=True)
class Counted:
    """A token that follows, and in how many places."""

    token: int
    text: str
    places: int


@dataclass(frozen=True)
class RowHit:
    """A training row: in how many places of it the token follows, and after how much of the context at most."""

    where: str
    places: int
    shared: int


@dataclass(frozen=True)
class Continuation:
    """One rung: how the context's last `length` tokens go on.

    Attributes:
        context_text: those tokens decoded.
        places: how often they occur with a training target behind them, in how many `rows`.
        counts: token -> places, the most frequent first, equals by id.
        at: uint32 [places], where in the corpus those tokens end, ascending.
    """

    length: int
    context_text: str
    places: int
    rows: int
    counts: dict[int, int]
    at: Ids = field(repr=False, compare=False)
    template: ChatTemplate = field(repr=False, compare=False)

    def share_of(self, token: int) -> float:
        """Of the places, 0 to 1."""
        return self.counts.get(token, 0) / self.places

    def top(self, most: int) -> list[Counted]:
        """The most frequent continuations, with their texts."""
        return [Counted(t, self.template.decode([t]), n) for t, n in list(self.counts.items())[:most]]


@dataclass(frozen=True)
class Ladder:
    """Every suffix of a context in a corpus.

    Attributes:
        ranges: where in the index those of 1, 2, ... tokens stand, to DEPTH.
        deep: uint32 [N], the places of the one of DEPTH tokens, ascending; none where it does not occur.
        shared: int32 [N], how many tokens up to there equal the context's end.
    """

    corpus: Corpus
    template: ChatTemplate
    context: list[int]
    ranges: list[tuple[int, int]]
    deep: Ids
    shared: Lengths

    @cached_property
    def places(self) -> list[int]:
        """Places of the suffixes of 1, 2, ... tokens, as far as there are any; falling."""
        deep = np.bincount(self.shared)[:DEPTH:-1].cumsum()[::-1]
        return [last - first for first, last in self.ranges] + [int(n) for n in deep]

    @cached_property
    def longest(self) -> Continuation | None:
        """The longest suffix that occurs; None where not even the last token does."""
        return self.rung(len(self.places)) if self.places else None

    @cached_property
    def best(self) -> Continuation | None:
        """The longest suffix with at least ENOUGH places; where none has, the last token alone."""
        length = max(1, sum(n >= ENOUGH for n in self.places))
        return self.rung(length) if length < len(self.places) else self.longest

    def rung(self, length: int) -> Continuation:
        """The suffix of `length` tokens. Cost: some 20 ns a place; memory: 4 bytes a place.

        Raises:
            UserError: it does not occur.
        """
        at = self._at(length)
        following = np.zeros(1, np.int64)
        for first in range(0, len(at), CHUNK):
            more = np.bincount(self._behind(at[first : first + CHUNK]), minlength=len(following))
            more[: len(following)] += following
            following = more
        tokens = np.flatnonzero(following)
        order = tokens[np.argsort(-following[tokens], kind="stable")]
        counts = dict(zip(order.tolist(), following[order].tolist(), strict=True))
        # Whichever is fewer is looked up among the other.
        if len(at) < len(self.corpus):
            rows = np.count_nonzero(np.diff(self.corpus.row_of(at))) + 1
        else:
            rows = np.count_nonzero(np.diff(np.searchsorted(at, self.corpus.starts.astype(np.uint32))))
        text = self.template.decode(self.context[-length:])
        return Continuation(length, text, len(at), int(rows), counts, at, self.template)

    def rows(self, token: int, length: int | None = None, limit: int = 10) -> list[RowHit]:
        """Rows in which `token` follows the suffix of `length` tokens (not given: that of `best`).

        Those that share most of the context come first, then the data's order.

        Raises:
            UserError: the suffix does not occur.
        """
        lowest = self.best if length is None else self.rung(length)
        if lowest is None or token not in lowest.counts:
            return []
        found: dict[int, int] = {}  # row -> how much it shares
        for n in range(len(self.places), lowest.length - 1, -1):
            if n < len(self.places) and self.places[n - 1] == self.places[n]:
                continue  # the same places as with a token more
            at = lowest.at if n == lowest.length else self._at(n)
            for first in range(0, len(at), SOME):
                if len(found) >= limit:
                    break
                part = at[first : first + SOME]
                for row in np.unique(self.corpus.row_of(part[self._behind(part) == token])).tolist():
                    found.setdefault(row, n)
        some = list(found.items())[:limit]
        return [RowHit(self.corpus.where(row), self._times(row, token, lowest.length), n) for row, n in some]

    def _at(self, length: int) -> Ids:
        """The suffix's places, ascending: memory is read in order then."""
        if not 1 <= length <= len(self.places):
            what = f"no suffix of {length} tokens of this context is in the training set"
            raise UserError(what, fix=f"the longest has {len(self.places)}")
        far = length >= DEPTH
        at: Ids = (
            self.deep[self.shared >= length] if far else np.sort(self.corpus.index[slice(*self.ranges[length - 1])])
        )
        return at

    def _behind(self, at: Ids) -> Ids:
        behind: Ids = self.corpus.tokens[at + np.uint32(1)] & np.uint32(NO_TOKEN)
        return behind

    def _times(self, row: int, token: int, length: int) -> int:
        """In how many places of a row the token follows the suffix."""
        ids = self.corpus.row(row)
        at = np.flatnonzero(ids[:-1] == self.context[-1] + LEARNED)
        at = at[ids[at + 1] & np.uint32(NO_TOKEN) == token]
        return int(np.count_nonzero(shared(ids, at.astype(np.uint32), self.context[-length:], 1) == length))


def continuations(corpus: Corpus, template: ChatTemplate, context: Sequence[int]) -> Ladder:
    """Look up every suffix of a context.

    Args:
        context: token ids, the whole of what stands before the token in question, prompt and template included.

    Raises:
        UserError: the context is empty.

    Cost: a few hundred looks into the index, then a walk back from the places of the suffix of DEPTH tokens.
    """
    if not context:
        raise UserError("the context is empty, so nothing comes before this token", fix="ask of a later one")
    context = list(context)
    found = ranges(*corpus.searched, context)
    deep = np.sort(corpus.index[slice(*found[-1])]) if len(found) == DEPTH else np.zeros(0, np.uint32)
    return Ladder(corpus, template, context, found, deep, shared(corpus.tokens, deep, context, DEPTH))


def sentence(ladder: Ladder, token: int, model_probability: float) -> str:
    """One line for people: the data's share, on the rung `best`, beside the model's probability."""
    said, best = f"the model says {model_probability:.1%}".replace("%", " %"), ladder.best
    if best is None:
        return f"the data has nothing behind {_quoted(ladder.template.decode(ladder.context[-1:]))}; {said}"
    count, of = best.counts.get(token, 0), f"{best.places:,} place{'s' if best.places > 1 else ''}"
    share = best.share_of(token)
    # A percentage of a few places, or of nearly none, would say more or less than is known.
    often = (
        f"{share:.0%} of {of}".replace("%", " %") if best.places >= ENOUGH and share >= 0.01 else f"{count:,} of {of}"
    )
    return (
        f"after {_quoted(best.context_text)} the data has {_quoted(ladder.template.decode([token]))} in {often}; {said}"
    )


def _quoted(text: str) -> str:
    shown = (text if len(text) <= SHOWN else f"…{text[-SHOWN:]}").replace("\n", "⏎").replace("\t", "⇥")
    return f"`{shown}`"
