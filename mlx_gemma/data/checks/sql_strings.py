"""SQL put together from strings and values: `"SELECT ... %s" % name`, `+`, `.format()`, an f-string.

It stands in for bandit's B608, which takes the square of the length, "Select a file from {folder}" for SQL, and a
statement split over two constants for an injection. A statement here begins with its keyword, in capitals or in small
letters, and has at least one part that is no constant.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

STATEMENTS = (  # (how it begins, what must follow somewhere)
    (re.compile(r"\s*(?:SELECT|select)\s"), re.compile(r"\b(?:FROM|from)\s")),
    (re.compile(r"\s*(?:DELETE|delete)\s+(?:FROM|from)\s"), re.compile(r"")),
    (
        re.compile(r"\s*(?:INSERT|insert|REPLACE|replace)\s+(?:INTO|into|OR|or)\s"),
        re.compile(r"(?:VALUES|values)[\s(]"),
    ),
    (re.compile(r"\s*(?:UPDATE|update)\s"), re.compile(r"\b(?:SET|set)\s")),
)


def sql_strings(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions that put a statement together. Linear in the tree; no recursion."""
    inner: set[ast.AST] = set()  # parts of an expression that was judged as a whole
    for node in ast.walk(tree):  # breadth first, so that a whole comes before its parts
        if node in inner or not isinstance(node, ast.BinOp | ast.JoinedStr | ast.Call):
            continue
        leaves = _leaves(node, inner)
        text = "".join(leaf for leaf in leaves if leaf is not None)
        if None in leaves and any(first.match(text) and then.search(text) for first, then in STATEMENTS):
            yield node


def _leaves(node: ast.expr, inner: set[ast.AST]) -> list[str | None]:
    """The constant texts of a string expression in their order, None for each part that is no constant."""
    leaves: list[str | None] = []
    waiting = [node]
    while waiting:
        part = waiting.pop()
        inner.add(part)
        match part:
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                waiting += (right, left)
            case ast.BinOp(left=ast.Constant() | ast.JoinedStr() as left, op=ast.Mod(), right=right):
                waiting += (right, left)
            case ast.JoinedStr(values=values):
                waiting += reversed(values)
            case ast.Call(
                func=ast.Attribute(value=ast.Constant() as text, attr="format"), args=args, keywords=keywords
            ):
                waiting += [*(k.value for k in reversed(keywords)), *reversed(args), text]
            case ast.Tuple(elts=elts):
                waiting += reversed(elts)
            case ast.Constant(value=value):
                leaves.append(value if isinstance(value, str) else "")
            case _:
                leaves.append(None)
    return leaves
