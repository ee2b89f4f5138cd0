"""Idioms that Python 3 parses and that work only where Python 2's rules hold.

Lists where Python 3 has iterators and views (`len(filter(...))`, `d.keys().sort()`), integer division by `/`
(`items[n / 2]`), comparison functions (`sorted(x, cmp=f)`), the print statement's remains (`print >>f, x`). Only uses
that fail in Python 3 whatever the values are findings: `return map(f, x)` or `total / count` may be meant as they are.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from mlx_gemma.data.python2_grammar import Finding
from mlx_gemma.data.python2_scopes import FUNCTIONS, inside, place

ITERATORS = {"map", "filter", "zip"}
VIEWS = {"keys", "values", "items"}
NO_LIST = "map, filter, zip, keys, values and items give no list"
LIST_METHODS = {"append", "extend", "insert", "pop", "remove", "reverse", "sort"}


def idiom_findings(tree: ast.Module, own_methods: set[str]) -> list[Finding]:
    """The findings of a module; `own_methods` are methods it defines itself or has from a library that kept them."""
    own_names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} | own_methods
    scopes = [tree, *(n for n in ast.walk(tree) if isinstance(n, FUNCTIONS))]
    return [f for scope in scopes for f in _Idioms(scope, own_methods, own_names).findings()]


class _Idioms:
    """One function (or the module's top level), with what its variables were assigned."""

    def __init__(self, scope: ast.AST, own_methods: set[str], own_names: set[str]) -> None:
        self.views, self.iterators = VIEWS - own_methods, ITERATORS - own_names
        self.nodes = list(inside(scope))
        self.values: dict[str, list[ast.expr | None]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self.values.setdefault(node.targets[0].id, []).append(node.value)
        stored = [n.id for n in self.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        stored += [n.arg for n in self.nodes if isinstance(n, ast.arg)]
        for name, known in self.values.items():  # None: bound in another way too, to who knows what
            known.extend([None] * (stored.count(name) - len(known)))

    def findings(self) -> Iterator[Finding]:
        for node in self.nodes:
            if isinstance(node, ast.Call):
                yield from self._call(node)
            elif isinstance(node, ast.Subscript):
                yield from self._subscript(node)
            elif isinstance(node, ast.BinOp):
                yield from self._operation(node)
            elif isinstance(node, ast.Expr):
                yield from self._statement(node)
            elif isinstance(node, ast.For):
                yield from self._deleting_loop(node)
            elif isinstance(node, ast.While):
                yield from self._dividing_loop(node)

    # What an expression is, as far as the source alone tells

    def _is(self, node: ast.expr, test: Callable[[ast.expr], bool]) -> bool:
        """Whether `test` holds of an expression, or of every value given to the variable that it is."""
        if isinstance(node, ast.Name) and node.id in self.values:
            return all(v is not None and test(v) for v in self.values[node.id])
        return test(node)

    def _iterator(self, node: ast.expr) -> bool:
        return _calls(node, self.iterators)

    def _view(self, node: ast.expr) -> bool:
        call = isinstance(node, ast.Call) and not node.args and not node.keywords
        return call and isinstance(node.func, ast.Attribute) and node.func.attr in self.views  # type: ignore[attr-defined]

    def _no_list(self, node: ast.expr) -> bool:
        return self._iterator(node) or self._view(node)

    def _quotient(self, node: ast.expr) -> bool:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            return self._quotient(node.left) or self._quotient(node.right)
        return _divides_by_int(node)

    # The rules

    def _call(self, node: ast.Call) -> Iterator[Finding]:
        function, args = node.func, node.args
        if any(k.arg == "cmp" for k in node.keywords) and _named(function) in ("sort", "sorted"):
            yield place(node, "cmp=", "sort takes key=")
        if _calls(node, {"sorted"}) and len(args) > 1:
            yield place(node, "sorted(x, cmp)", "sorted takes key=")
        if _calls(node, {"len"}) and args and self._is(args[0], self._iterator):
            yield place(node, "len of an iterator", "map, filter and zip give no list")
        if _calls(node, {"range"}) and any(self._is(a, self._quotient) for a in args):
            yield place(node, "range(n / 2)", "/ gives a float, // an integer")
        if isinstance(function, ast.Attribute) and function.attr in LIST_METHODS:
            if self._is(function.value, self._no_list) and not isinstance(function.value, ast.Constant):
                yield place(node, f"{function.attr} on no list", NO_LIST)
            if function.attr == "sort" and args and _compares(args[0]):
                yield place(node, "sort(cmp)", "sort takes key=")

    def _subscript(self, node: ast.Subscript) -> Iterator[Finding]:
        if self._is(node.value, self._no_list):
            yield place(node, "index into no list", NO_LIST)
        bounds = [node.slice.lower, node.slice.upper] if isinstance(node.slice, ast.Slice) else [node.slice]
        if any(b is not None and self._is(b, self._quotient) for b in bounds):
            yield place(node, "index n / 2", "/ gives a float, // an integer")

    def _operation(self, node: ast.BinOp) -> Iterator[Finding]:
        sides = (node.left, node.right)
        lists = [self._no_list(s) or isinstance(s, ast.List | ast.ListComp) for s in sides]
        if isinstance(node.op, ast.Add) and all(lists) and any(map(self._no_list, sides)):
            yield place(node, "sum of no lists", NO_LIST)
        if isinstance(node.op, ast.Mod) and _calls(node.left, {"print"}):
            yield place(node, 'print ("...") % x', "print is a function, and returns None")

    def _statement(self, node: ast.Expr) -> Iterator[Finding]:
        value = node.value
        first = value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value
        if isinstance(first, ast.BinOp) and isinstance(first.op, ast.RShift) and _is_print(first.left):
            yield place(node, "print >>", "print takes file=")
        if _is_print(value):
            yield place(node, "bare print", "print is a function: print()")
        if first is not value and _calls(first, {"print"}):
            yield place(node, 'print ("..."), x', "print is a function")

    def _deleting_loop(self, node: ast.For) -> Iterator[Finding]:
        if not self._view(node.iter) or any(isinstance(n, ast.Break | ast.Return) for n in ast.walk(node)):
            return
        looped = ast.dump(node.iter.func.value)  # type: ignore[attr-defined]
        for inner in ast.walk(node):
            targets = inner.targets if isinstance(inner, ast.Delete) else []
            if any(isinstance(t, ast.Subscript) and ast.dump(t.value) == looped for t in targets):
                yield place(node, "deleting while looping", "keys, values and items are views: loop over a list")

    def _dividing_loop(self, node: ast.While) -> Iterator[Finding]:
        """`while n: ... n % 10 ... n /= 10`: taking a number's digits, which never ends well in floats."""
        tested = {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}
        for inner in ast.walk(node):
            name = _divided(inner)
            if isinstance(inner, ast.stmt) and name in tested and _remainder_taken(node, name):
                yield place(inner, f"{name} / n in a loop over digits", "/ gives a float, // an integer")


def _named(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _calls(node: ast.expr, names: set[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def _is_print(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "print"


def _int(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _divides_by_int(node: ast.expr) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and _int(node.right)


def _divided(node: ast.AST) -> str:
    """x of `x /= 2` and of `x = x / 2`; else empty."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div) and _int(node.value):
        return getattr(node.target, "id", "")
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and _divides_by_int(node.value):
        name = getattr(node.targets[0], "id", "")
        return name if name == getattr(node.value.left, "id", None) else ""
    return ""


def _compares(node: ast.expr) -> bool:
    return isinstance(node, ast.Lambda) and len(node.args.args) == 2


def _remainder_taken(loop: ast.While, name: str) -> bool:
    remainders = [n.left for n in ast.walk(loop) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mod)]
    return any(isinstance(left, ast.Name) and left.id == name for left in remainders)
