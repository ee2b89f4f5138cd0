"""Integer division by `/`: `range(n / 2)`, `items[len(items) / 2]`, `n /= 10` in a loop over digits.

Findings are places where a float fails, or where the loop would never end well; `total / count` may be meant as it is.
An index counts where what is indexed is a sequence by its other uses (a slice, `len`, an integer), since a dict takes a
float.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from mlx_gemma.data.python.python2_grammar import Finding
from mlx_gemma.data.python.python2_scopes import place, walk
from mlx_gemma.data.python.python2_values import Values, called, calls, is_int

FLOAT = "/ gives a float, // an integer"
ONLY_INTEGERS = {"range", "xrange", "chr", "bin", "hex", "oct", "islice"}


def division_findings(values: Values, *, symbolic: bool) -> Iterator[Finding]:
    """The findings of one function; with `symbolic` (SymPy is imported), where `len` shows that integers are meant."""

    def quotient(node: ast.expr) -> bool:
        found = _quotient(node)
        return found is not None and (not symbolic or _of_length(found))

    sequences = _sequences(values)
    for node in values.nodes:
        if isinstance(node, ast.Call):
            if (name := called(node.func)) in ONLY_INTEGERS and any(values.every(a, quotient) for a in node.args):
                yield place(node, f"{name}(n / 2)", FLOAT)
        elif isinstance(node, ast.Subscript):
            cut = isinstance(node.slice, ast.Slice)
            bounds = [node.slice.lower, node.slice.upper] if isinstance(node.slice, ast.Slice) else [node.slice]
            divided = [b for b in bounds if b is not None and values.every(b, quotient)]
            known = cut or _key(node.value) in sequences or any(_of_length(b) for b in divided)
            if divided and known and not values.every(node.value, values.mapping):
                yield place(node, "index n / 2", FLOAT)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            for one, other in ((node.left, node.right), (node.right, node.left)):
                if isinstance(one, ast.Constant) and isinstance(one.value, str) and values.every(other, quotient):
                    yield place(node, "text times n / 2", FLOAT)
        elif isinstance(node, ast.While):
            yield from _digits(node)


def _quotient(node: ast.expr) -> ast.BinOp | None:
    """The division in `n / 2`, `a / 2 + 1` or `len(x) / k`; None where there is none that integers must be meant by."""
    todo: list[ast.expr] = [node]
    while todo:
        part = todo.pop()
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add | ast.Sub):
            todo += [part.left, part.right]
        elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.Div) and (is_int(part.right) or _of_length(part)):
            return part
    return None


def _of_length(node: ast.expr) -> bool:
    return any(isinstance(n, ast.Call) and calls(n, {"len"}) for n in walk(node))


def _sequences(values: Values) -> set[str]:
    """What is sliced, measured or indexed by an integer, or by a variable that starts as one."""
    found = set()
    for node in values.nodes:
        if isinstance(node, ast.Subscript) and (isinstance(node.slice, ast.Slice) or is_int(node.slice)):
            found.add(_key(node.value))
        elif isinstance(node, ast.Call) and calls(node, {"len"}) and node.args:
            found.add(_key(node.args[0]))
    return found - {""}


def _key(node: ast.expr) -> str:
    """`xs` and `self.xs` as text; empty for anything else."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return getattr(node, "id", "")


def _digits(loop: ast.While) -> Iterator[Finding]:
    """`while n: ... n % 10 ... n /= 10`: taking a number's digits.

    Only where every round divides: `if n % 2 == 0: n /= 2` works with floats as well.
    """
    tested = {n.id for n in walk(loop.test) if isinstance(n, ast.Name)}
    divisions = [(s, name) for s in loop.body if (name := _divided(s)) in tested]
    if divisions:
        nodes = walk(loop)
        lefts = [n.left for n in nodes if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mod)]
        remainders = {left.id for left in lefts if isinstance(left, ast.Name)}
        for statement, name in divisions:
            if name in remainders:
                yield place(statement, "n / 10 in a loop over digits", FLOAT)


def _divided(node: ast.stmt) -> str:
    """x of `x /= 2` and of `x = x / 2`; else empty."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div) and is_int(node.value):
        return getattr(node.target, "id", "")
    value = node.value if isinstance(node, ast.Assign) else None
    if isinstance(node, ast.Assign) and isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div):
        name = getattr(node.targets[0], "id", "")
        return name if is_int(value.right) and name == getattr(value.left, "id", None) else ""
    return ""
