"""Tokens as bytes: which token may begin, end or go on within a given text.

SentencePiece's vocabulary as Gemma has it: ▁ stands for a space, `<0xE2>` for a single byte.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import Any

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
AFTER = b"\xff\xff\xff\xff"  # behind any UTF-8 text


class Vocabulary:
    """The bytes of every token of a tokenizer, control tokens left out. Building it takes about 0.5 s for 262,144."""

    def __init__(self, tokenizer: Any) -> None:
        control = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        self._bytes = {i: _bytes(piece) for piece, i in tokenizer.get_vocab().items() if i not in control}

    def bytes_of(self, token: int) -> bytes | None:
        """None of a control token."""
        return self._bytes.get(token)

    @cached_property
    def _sorted(self) -> tuple[list[bytes], list[int]]:
        pairs = sorted((b, i) for i, b in self._bytes.items())
        return [b for b, _ in pairs], [i for _, i in pairs]

    def reaching(self, rest: bytes) -> list[int]:
        """Tokens that begin with all of `rest`."""
        texts, ids = self._sorted
        return ids[bisect_left(texts, rest) : bisect_right(texts, rest + AFTER)]

    def within(self, rest: bytes) -> list[tuple[int, int]]:
        """(token, bytes it takes) of tokens that are a beginning of `rest`, shorter than it."""
        texts, ids = self._sorted
        found = []
        for size in range(1, len(rest)):
            at = bisect_left(texts, rest[:size])
            while at < len(texts) and texts[at] == rest[:size]:
                found.append((ids[at], size))
                at += 1
        return found


def _bytes(piece: str) -> bytes:
    single = BYTE.fullmatch(piece)
    return bytes.fromhex(single[1]) if single else piece.replace("▁", " ").encode("utf8")
