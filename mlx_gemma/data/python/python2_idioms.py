"""Idioms that Python 3 parses and that work only where Python 2's rules hold.

The print statement's remains (`print >>f, x`), comparison functions (`sorted(x, cmp)`), exceptions that have a message
and items; python2_lists.py and python2_division.py have the rest. Only uses that fail in Python 3 whatever the values
are findings.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Container, Iterator

from mlx_gemma.data.python.python2_division import division_findings
from mlx_gemma.data.python.python2_grammar import Finding
from mlx_gemma.data.python.python2_lists import list_findings
from mlx_gemma.data.python.python2_scopes import FUNCTIONS, imported_modules, place, walk
from mlx_gemma.data.python.python2_values import Values, called, calls

EXCEPTIONS = {n for n, x in vars(builtins).items() if isinstance(x, type) and issubclass(x, Exception)}
ANYTHING = {"Exception", "Warning"}  # a library's exception may have a message


def idiom_findings(tree: ast.Module, own_methods: set[str], known: Container[str] = ()) -> list[Finding]:
    """The findings of a module.

    Args:
        own_methods: methods it defines itself or has from a library that kept them.
        known: names that the code before it binds.
    """
    nodes = walk(tree)
    own_names = _Own(
        {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}, own_methods, known
    )
    defined = [n for n in nodes if isinstance(n, ast.FunctionDef)]
    comparing = {f.name for f in defined if len(f.args.args) == 2 and f.args.args[0].arg != "self"}
    symbolic = any(m.split(".")[0] == "sympy" for m in imported_modules(nodes))
    found: list[Finding] = []
    for scope in (tree, *(n for n in nodes if isinstance(n, FUNCTIONS))):
        values = Values(scope, own_methods, own_names)
        found += list_findings(values)
        found += division_findings(values, symbolic=symbolic)
        for node in values.nodes:
            if isinstance(node, ast.Call):
                found += _sorting(node, comparing, own_names)
            elif isinstance(node, ast.BinOp):
                if isinstance(node.op, ast.Mod) and calls(node.left, {"print"}):
                    found.append(place(node, 'print ("...") % x', "print is a function, and returns None"))
            elif isinstance(node, ast.Expr):
                found += _printing(node)
            elif isinstance(node, ast.ExceptHandler):
                found += _caught(node, own_names)
    return found


class _Own:
    """Names that are not Python's own, of several sources, without a copy."""

    def __init__(self, *names: Container[str]) -> None:
        self.names = names

    def __contains__(self, name: object) -> bool:
        return any(name in some for some in self.names)


def _sorting(node: ast.Call, comparing: set[str], own_names: Container[str]) -> Iterator[Finding]:
    function, args = node.func, node.args
    if any(k.arg == "cmp" for k in node.keywords) and called(function) in ("sort", "sorted"):
        yield place(node, "cmp=", "sort takes key=")
    if calls(node, {"sorted"}) and len(args) > 1 and "sorted" not in own_names:
        yield place(node, "sorted(x, cmp)", "sorted takes key=")
    if isinstance(function, ast.Attribute) and function.attr == "sort" and len(args) == 1:
        by_lambda = isinstance(args[0], ast.Lambda) and len(args[0].args.args) == 2
        if by_lambda or getattr(args[0], "id", "") in comparing:
            yield place(node, "sort(cmp)", "sort takes key=")


def _printing(node: ast.Expr) -> Iterator[Finding]:
    value = node.value
    first = value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value
    if isinstance(first, ast.BinOp) and isinstance(first.op, ast.RShift) and _is_print(first.left):
        yield place(node, "print >>", "print takes file=")
    if _is_print(value):
        yield place(node, "bare print", "print is a function: print()")
    if isinstance(value, ast.Compare) and isinstance(value.ops[0], ast.In) and calls(value.left, {"exec"}):
        yield place(node, "exec (...) in x", "exec is a function: exec(code, x)")
    if first is not value and calls(first, {"print"}):
        yield place(node, 'print ("..."), x', "print is a function")


def _is_print(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "print"


def _caught(handler: ast.ExceptHandler, own_names: Container[str]) -> Iterator[Finding]:
    """`e.message` and `e[0]` of Python's own exceptions, which have neither."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {getattr(kind, "id", "") for kind in kinds}
    if not handler.name or not names <= EXCEPTIONS or any(n in own_names for n in (*names, handler.name)):
        return
    for node in (n for statement in handler.body for n in walk(statement)):
        if not isinstance(node, ast.Attribute | ast.Subscript) or getattr(node.value, "id", "") != handler.name:
            continue
        if isinstance(node, ast.Subscript):
            yield place(node, "index into an exception", "it is in .args")
        elif node.attr == "message" and not names & ANYTHING and "message" not in own_names:
            yield place(node, ".message of an exception", "str(e) is its message")
