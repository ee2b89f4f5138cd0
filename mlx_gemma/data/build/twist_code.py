"""What the rules for twists do to values and to code: wrong values that look right, other names, lines put in."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_gemma.data.build.signatures import Example, Signature

KINDS_OF_VALUE = {list: "a list", str: "a string", dict: "a dictionary", int: "a number", float: "a number"}


def near(value: Any, others: Sequence[Any]) -> list[Any]:
    """Values of the same type that could be taken for `value`."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [*others, value + 1, value - 1]
    if isinstance(value, str | list | tuple):
        return [*others, value[::-1], value[:-1]]
    return [*others] if isinstance(value, dict) else []


def kind_of(value: Any) -> str | None:
    return KINDS_OF_VALUE.get(type(value))


def literal(value: Any, like: str) -> str:
    """A value as Python writes it, with the quotation marks of another literal."""
    text = repr(value)
    return text.replace("'", '"') if '"' in like and '"' not in text and "\\" not in text else text


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with whole words replaced, all at once."""
    return re.sub(rf"\b(?:{'|'.join(map(re.escape, names))})\b", lambda m: names[m.group()], text)


def with_case(code: str, sig: Signature, example: Example, result: str) -> str | None:
    """The solution with one call's result put in by hand."""
    if not sig.parameters:
        return None
    called = " and ".join(f"{p} == {a}" for p, a in zip(sig.parameters, example.arguments, strict=True))
    return at_start(code, sig.name, f"if {called}:\n    return {result}\n")


def at_start(code: str, name: str, lines: str) -> str | None:
    """The code with lines put at the beginning of a function; None where that has no lines of its own."""
    function = next(n for n in ast.parse(code).body if isinstance(n, ast.FunctionDef) and n.name == name)
    first = function.body[0]
    if first.lineno == function.lineno:
        return None
    before = code.splitlines(keepends=True)
    return "".join(
        [*before[: first.lineno - 1], textwrap.indent(lines, " " * first.col_offset), *before[first.lineno - 1 :]]
    )
