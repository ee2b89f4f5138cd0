"""Tokens joined into what a programmer thinks in: identifiers, numbers, operators, lines; with their joint probability.

A tokeniser cuts `xrange` into `x` and `range`, or holds `):` and a line break in one token. A piece is the smallest run
of whole tokens that holds whole lexemes, so every token lies in exactly one piece, and probabilities multiply.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_gemma.tracing.record import Position

WORDS = re.compile(
    r"""[^\W\d]\w*                                  # identifiers and keywords
    | \d[\w.]*                                      # numbers
    | [ \t]+ | \r?\n                                # blanks, a line break
    | \*\*=? | //=? | <<=? | >>=? | <> | [-+*/%&|^@=!<>:]= | -> | \.\.\.   # operators of several characters
    | .                                             # any other character
    """,
    re.VERBOSE | re.DOTALL,
)
LINES = re.compile(r"[^\n]*\n|[^\n]+")
UNITS = {"word": WORDS, "line": LINES}


@dataclass(frozen=True)
class Piece:
    """A run of tokens; `logprob` is of all of them together, in nats."""

    positions: list[Position]
    text: str

    @property
    def logprob(self) -> float:
        return math.fsum(p.logprob for p in self.positions)

    @property
    def probability(self) -> float:
        return math.exp(self.logprob)

    @property
    def least(self) -> Position:
        """Its least probable token: where it was decided."""
        return min(self.positions, key=lambda p: p.logprob)


def pieces(positions: Sequence[Position], unit: str = "word") -> list[Piece]:
    """Join tokens by `word` or `line`.

    A character that spans several tokens makes texts of single tokens longer than the whole (each is shown as
    U+FFFD); these are joined into one piece.
    """
    text = "".join(p.text for p in positions)
    lexemes = [m.end() for m in UNITS[unit].finditer(text)]
    out: list[Piece] = []
    run: list[Position] = []
    end, limit = 0, 0
    ends = iter(lexemes)
    for p in positions:
        run.append(p)
        end += len(p.text)
        while limit < end:
            limit = next(ends, end)
        broken = "\N{REPLACEMENT CHARACTER}" in p.text
        if end == limit and not broken:
            out.append(Piece(run, "".join(q.text for q in run)))
            run = []
    if run:
        out.append(Piece(run, "".join(q.text for q in run)))
    return out
