"""Python 2 by its grammar: the constructs that Python 3 no longer parses, each with its place.

Asked only about source that `ast` refuses. fissix (the maintained lib2to3) parses both Pythons and more than either, so
that it accepts a text does not make it Python 2: one of the constructs below must be in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

OLD_OCTAL = re.compile(r"0\d*[1-9]\d*$")
OLD_LONG = re.compile(r"\d[\da-fA-FxXoObB]*[lL]$")


@dataclass(frozen=True)
class Finding:
    """One Python 2 construct: line and column from 1, the name of what was found, and what Python 3 has."""

    line: int
    column: int
    name: str
    message: str


@cache
def _drivers() -> list[Any]:
    from fissix import pygram, pytree
    from fissix.pgen2 import driver

    grammars = (pygram.python_grammar, pygram.python_grammar_no_print_statement)  # 2: with `from __future__ import ...`
    return [driver.Driver(g, convert=pytree.convert) for g in grammars]


def _trees(source: str) -> Iterator[Any]:
    from fissix.pgen2.parse import ParseError
    from fissix.pgen2.tokenize import TokenError

    for driver in _drivers():
        try:
            yield driver.parse_string(source.rstrip("\n") + "\n")
        except (ParseError, TokenError, IndentationError, UnicodeDecodeError, RecursionError):
            continue


def parses_as_python2(source: str) -> bool:
    """Whether Python 2's grammar accepts `source` (about 1 ms a line-dozen)."""
    return any(True for _ in _trees(source))


def grammar_findings(source: str) -> list[Finding]:
    """The constructs of Python 2 in source that its grammar accepts; none where it does not parse."""
    for tree in _trees(source):
        found, todo = set(), [tree]
        while todo:
            node = todo.pop()
            if (finding := _finding(node)) is not None:
                found.add(finding)
            todo.extend(node.children)
        return sorted(found, key=lambda f: (f.line, f.column, f.name))
    return []


def _finding(node: Any) -> Finding | None:
    from fissix import pygram
    from fissix.pgen2 import token

    symbols = pygram.python_symbols
    kind = node.type
    if kind < 256:
        found = _token_finding(node, kind, token)
    elif kind == symbols.print_stmt and _after(node) != "(":
        found = "print statement", "print is a function"
    elif kind == symbols.exec_stmt and _after(node) != "(":
        found = "exec statement", "exec is a function"
    elif kind == symbols.except_clause and _names_the_error(node):
        found = "except X, e", "write `except X as e`"
    elif kind == symbols.raise_stmt and any(getattr(c, "value", "") == "," for c in node.children):
        found = "raise X, value", "write `raise X(value)`"
    elif kind in (symbols.tfpdef, symbols.vfpdef):
        found = "tuple parameter", "unpack the tuple inside the function"
    elif kind == symbols.testlist_safe:
        found = "bare tuple in a comprehension", "put the tuple in parentheses"
    else:
        found = None
    if found is None:
        return None
    leaf = next(node.leaves())
    return Finding(leaf.lineno, leaf.column + 1, *found)


def _token_finding(leaf: Any, kind: int, token: Any) -> tuple[str, str] | None:
    value = leaf.value
    if kind == token.NAME:
        if value == "print" and not leaf.next_sibling and leaf.parent.type != _symbol("power"):
            return "print statement", "print is a function"
        if value in ("async", "await"):
            return f"{value} as a name", f"{value} is a keyword since Python 3.7"
    elif kind == token.NUMBER:
        if OLD_LONG.match(value):
            return "long literal", "integers have no L"
        if OLD_OCTAL.match(value):
            return "old octal literal", "octal numbers begin with 0o"
    elif kind == token.STRING and value[:2].lower() == "ur":
        return "ur string", "Python 3 has no ur prefix"
    elif value == "<>":
        return "<>", "write !="
    elif value == "`":
        return "backquotes", "write repr(x)"
    return None


def _names_the_error(clause: Any) -> bool:
    """`except X, e`; in Python 3.14 `except X, Y` catches two, and a class begins with a capital."""
    parts = [str(c).strip() for c in clause.children]
    return "," in parts and not parts[parts.index(",") + 1][:1].isupper()


def _symbol(name: str) -> int:
    from fissix import pygram

    return int(getattr(pygram.python_symbols, name))


def _after(statement: Any) -> str:
    """The first token after a statement's keyword."""
    leaves = statement.leaves()
    next(leaves)
    return str(next(leaves).value)
