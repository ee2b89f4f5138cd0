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
    ("for i in xrange(3):\n    print i", "for k in xrange(3):\n    print k"),  # Python 2: by its words
    (
        "try:\n    f()\nexcept ValueError as e:\n    print(e)",
        "try:\n    f()\nexcept ValueError as err:\n    print(err)",
    ),
    ("n = 0\ndef f():\n    global n\n    n = 1", "m = 0\ndef f():\n    global m\n    m = 1"),
    ('async def f():\n    """It."""\n    return 1', "async def f():\n    return 1"),
]
DIFFERENT = [
    ("for i in range(3):\n    print(i)", "for i in xrange(3):\n    print(i)"),
    ("print(1)", "print 1"),
    ("def f(a):\n    return a", "def g(a):\n    return a"),
    ("def f(a, b):\n    return a - b", "def f(a, b):\n    return b - a"),
    ("x = 1", "x = 2"),
    ("sum(a)", "max(a)"),
    ("for i in xrange(3):\n    print i\n    print 'a'", "for i in xrange(3):\n    print i\nprint 'a'"),
    ("print 'a  b'", "print 'a b'"),
    ("def f(x):\n    return x\nf(x=1)", "def f(y):\n    return y\nf(x=1)"),
    ("print(max(a))\nmax = 1", "print(min(a))\nmin = 1"),
    ("def f():\n    global x\n    x = 1", "def f():\n    global x\n    y = 1"),
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
    for a, b in (("C", "C++"), ("-5", "5"), ("\N{THUMBS UP SIGN}", "\N{THUMBS DOWN SIGN}"), ("a < b", "a > b")):
        assert not same(a, b)
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
    for length in (4, 8, 12, 16):  # rivals that are cut are compared as far as they go
        assert [r.branch.alternative.text for r in find(gemma, found, length=length)] == [" xrange"]
    cut = trace(gemma, "Print the numbers from 1 to 5, one per line.", max_tokens=8)
    assert [r.branch.alternative.text for r in find(gemma, cut)] == [" xrange"]
