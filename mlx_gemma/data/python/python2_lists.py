"""Lists that Python 3 no longer gives: `d.keys().sort()`, `len(filter(...))`, `range(3) + range(4)`.

map, filter and zip give iterators, keys, values and items give views, range gives a range. Findings are uses that fail
whatever the values are; `return map(f, x)` may be meant as it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from mlx_gemma.data.python.python2_grammar import Finding
from mlx_gemma.data.python.python2_scopes import place, walk
from mlx_gemma.data.python.python2_values import Values, called, calls, is_int

NO_LIST = "map, filter, zip, keys, values and items give no list"
NO_RANGE = "range gives no list: list(range(...))"
CHANGING = {"append", "extend", "insert", "pop", "remove", "reverse", "sort"}
METHODS = CHANGING | {"count", "index"}


def list_findings(values: Values) -> Iterator[Finding]:
    """The findings of one function."""
    for node in values.nodes:
        if isinstance(node, ast.Call):
            yield from _call(node, values)
        elif isinstance(node, ast.Subscript):
            yield from _subscript(node, values)
        elif isinstance(node, ast.BinOp):
            yield from _operation(node, values)
        elif isinstance(node, ast.For):
            yield from _deleting_loop(node, values)


def _call(node: ast.Call, values: Values) -> Iterator[Finding]:
    function, args = node.func, node.args
    if calls(node, {"len"}) and args and values.every(args[0], values.iterator):
        yield place(node, "len of an iterator", "map, filter and zip give no list")
    if calls(node, {"reversed"}) and args and values.every(args[0], values.iterator):
        yield place(node, "reversed of an iterator", "map, filter and zip give no list")
    if calls(node, {"map"} & values.iterators) and args and isinstance(args[0], ast.Constant) and args[0].value is None:
        yield place(node, "map(None, x)", "map takes a function; zip pairs")
    name = called(function)
    if name in ("shuffle", "choice") and len(args) == 1:
        if values.every(args[0], values.unordered):
            yield place(node, f"{name} of no list", NO_LIST)
        elif name == "shuffle" and values.every(args[0], values.range):
            yield place(node, "shuffle of no list", NO_RANGE)
    if isinstance(function, ast.Attribute) and name in METHODS:
        if values.every(function.value, values.unordered):
            yield place(node, f"{name} on no list", NO_LIST)
        elif name in CHANGING and values.every(function.value, values.range):
            yield place(node, f"{name} on no list", NO_RANGE)


def _subscript(node: ast.Subscript, values: Values) -> Iterator[Finding]:
    if values.every(node.value, values.unordered):
        yield place(node, "index into no list", NO_LIST)
    elif not isinstance(node.ctx, ast.Load) and values.every(node.value, values.range):
        yield place(node, "assignment into no list", NO_RANGE)


def _operation(node: ast.BinOp, values: Values) -> Iterator[Finding]:
    sides = (node.left, node.right)
    no_lists = [values.every(s, values.no_list) for s in sides]
    if isinstance(node.op, ast.Add):
        lists = [isinstance(s, ast.List | ast.ListComp) or calls(s, {"list", "sorted"}) for s in sides]
        if any(no_lists) and all(a or b for a, b in zip(no_lists, lists, strict=True)):
            yield place(node, "sum of no lists", NO_LIST if any(map(values.unordered, sides)) else NO_RANGE)
    elif isinstance(node.op, ast.Mult) and any(no_lists) and any(map(is_int, sides)):
        yield place(node, "times no list", NO_RANGE)


def _deleting_loop(node: ast.For, values: Values) -> Iterator[Finding]:
    if not values.view(node.iter) or any(isinstance(n, ast.Break | ast.Return) for n in walk(node)):
        return
    looped = ast.dump(node.iter.func.value)  # type: ignore[attr-defined]
    for inner in walk(node):
        targets = inner.targets if isinstance(inner, ast.Delete) else []
        if any(isinstance(t, ast.Subscript) and ast.dump(t.value) == looped for t in targets):
            yield place(node, "deleting while looping", "keys, values and items are views: loop over a list")
            return
