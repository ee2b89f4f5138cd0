"""Answers of the same and of different meaning, and where they compete."""

from __future__ import annotations

import pytest

from mlx_gemma.gemma4.load import load
from mlx_gemma.tracing.meaning import find, same
from mlx_gemma.tracing.record import trace


def code(text: str) -> str:
    return f"```python\n{text}\n```"


SAME = [
    ("for i in range(3):\n    print(i)", "for number in range(3):\n  print(number)  # each"),
    ("def f(a):\n    return a", 'def f(x):\n    """Itself."""\n    return x'),
    ("print 1", "print  1"),  # Python 2 has no tree: by its words
    ("x = [a for a in b]", "x = [c for c in b]"),
]
DIFFERENT = [
    ("for i in range(3):\n    print(i)", "for i in xrange(3):\n    print(i)"),
    ("print(1)", "print 1"),
    ("def f(a):\n    return a", "def g(a):\n    return a"),
    ("def f(a, b):\n    return a - b", "def f(a, b):\n    return b - a"),
    ("x = 1", "x = 2"),
    ("sum(a)", "max(a)"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_the_same_program(a: str, b: str) -> None:
    assert same(code(a), code(b))


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_other_programs(a: str, b: str) -> None:
    assert not same(code(a), code(b))


def test_text() -> None:
    assert same("The answer is 4.", "the answer  is 4")
    assert not same("The answer is 4.", "The answer is 5.")
    assert not same("The answer is 4.", code("print(4)"))


def test_the_two_pythons_are_found() -> None:
    """nano's answer hangs between `range` and `xrange`; the names of loop variables, which hang too, mean nothing."""
    gemma = load("nano")
    found = trace(gemma, "Print the numbers from 1 to 5, one per line.")
    uncertain = [p for p in found.positions if p.candidates[1].probability > 0.05]
    rivals = find(gemma, found)
    assert [(r.position.text, r.branch.alternative.text, r.kinds) for r in rivals] == [
        (" range", " xrange", ("python3", "python2"))
    ]
    assert len(uncertain) > len(rivals)
    assert find(gemma, found, margin=0.1) == []
