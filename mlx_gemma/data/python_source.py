"""What kind of Python a piece of text is: Python 3, Python 2, broken, or no code at all.

The rule: what `ast` accepts is Python 3 by form; what it refuses and fissix's Python 2 grammar accepts is Python 2; what
both refuse is broken. Names and idioms that parse in Python 3 but belong to Python 2 (`xrange`, `.has_key`) come on top.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _python2_driver() -> Any:
    from fissix import pygram, pytree
    from fissix.pgen2 import driver

    return driver.Driver(pygram.python_grammar, convert=pytree.convert)


def parses_as_python2(source: str) -> bool:
    """Whether Python 2's grammar accepts `source` (fissix, the maintained lib2to3; about 1 ms a line-dozen)."""
    from fissix.pgen2.parse import ParseError
    from fissix.pgen2.tokenize import TokenError

    try:
        _python2_driver().parse_string(source.rstrip("\n") + "\n")
    except (ParseError, TokenError, IndentationError, UnicodeDecodeError):
        return False
    return True
