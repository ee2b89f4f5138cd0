"""Tokens joined into words and lines."""

from __future__ import annotations

import math

import pytest

from mlx_gemma.gemma4.load import load
from mlx_gemma.tracing.pieces import pieces
from mlx_gemma.tracing.record import Candidate, Position, trace


def positions(*texts: str) -> list[Position]:
    return [Position(i, i, t, -0.5 * i, 0, 0.0, [Candidate(i, t, -0.5 * i, True)]) for i, t in enumerate(texts)]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["x", "range"], ["xrange"]),
        (["for", " num", " in"], ["for", " num", " in"]),
        (["total", "_", "sum", "("], ["total_sum", "("]),
        (["a", "=", "=", "b"], ["a", "==", "b"]),
        (["):\n", "    ", "return"], ["):\n", "    ", "return"]),  # a token of several lexemes is a piece
        (["a +", "= 1"], ["a += 1"]),  # the operator lies in both tokens
        (["1", "0", "0", ")"], ["100", ")"]),
        (["é", "t", "é"], ["été"]),
        (["\ufffd", "\ufffd", "x"], ["\ufffd\ufffdx"]),  # a character in two tokens: never cut
    ],
)
def test_words(tokens: list[str], words: list[str]) -> None:
    found = pieces(positions(*tokens))
    assert [p.text for p in found] == words
    assert math.isclose(sum(p.logprob for p in found), -0.5 * sum(range(len(tokens))))


def test_lines() -> None:
    found = pieces(positions("def f", "():", "\n", "    return", " 1\n", "x"), "line")
    assert [p.text for p in found] == ["def f():\n", "    return 1\n", "x"]
    assert found[1].least.text == " 1\n"
    assert found[1].probability == pytest.approx(math.exp(-1.5 - 2.0))


def test_every_token_lies_in_one_piece() -> None:
    found = trace(load("nano"), "Write a function total(numbers) that returns the sum of a list.").positions
    for unit in ("word", "line"):
        joined = pieces(found, unit)
        assert [p for piece in joined for p in piece.positions] == found
        assert len(joined) < len(found)
