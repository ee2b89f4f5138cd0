"""Scopes of parsed source, and which of its code is meant for both Pythons. For the other python2_*.py.

A guard is code that finds out by itself whether Python 2's names are there: `try: unicode except NameError: ...`,
`if version < (3,): ...`, `with pytest.raises(NameError)`. Nothing inside is looked at.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from mlx_gemma.data.python.python2_grammar import Finding

OWN = ""  # bound by the source itself
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SCOPES = (*FUNCTIONS, ast.ClassDef)
SIGNS = (ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
GUARDING = (ast.With, ast.Try, ast.If, ast.IfExp, ast.Call)
RAISES = {"raises", "assertRaises", "assertRaisesRegex"}
GUARDS = {"ImportError", "ModuleNotFoundError", "NameError", "AttributeError"}
VERSION = re.compile(r"version|hexversion|(IS_|_|\b)(PY|PYTHON)_?[23]\b", re.IGNORECASE)
BOTH = re.compile(r"(is_?)?(py|python)_?[23]k?", re.IGNORECASE)

Scope = dict[str, str]  # name -> the module or module.member it was imported from, or OWN


def place(node: ast.stmt | ast.expr | ast.alias | ast.ExceptHandler, name: str, message: str) -> Finding:
    """A finding at a node; its column counts the bytes of UTF-8 before it, as `ast` does."""
    return Finding(node.lineno, node.col_offset + 1, name, message)


def children(node: ast.AST) -> list[ast.AST]:
    """A node's children, less operators and contexts; kept on the node, since every rule asks for them."""
    found: list[ast.AST] | None = getattr(node, "_children", None)
    if found is None:
        found = []
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                found += [x for x in value if isinstance(x, ast.AST) and not isinstance(x, SIGNS)]
            elif isinstance(value, ast.AST) and not isinstance(value, SIGNS):
                found.append(value)
        node._children = found  # type: ignore[attr-defined]
    return found


def walk(node: ast.AST) -> list[ast.AST]:
    """A node and all below it, in no order that matters."""
    found = [node]
    for at in found:
        found += children(at)
    return found


def inside(scope: ast.AST, *, guarded: bool = True) -> Iterator[ast.AST]:
    """The nodes of one scope: functions, classes and code that shall fail are handed out but not entered.

    Args:
        guarded: also what a guard keeps from running where Python 2's names are missing.
    """
    todo = children(scope).copy()
    while todo:
        node = todo.pop()
        yield node
        kind = type(node)
        if kind in SCOPES or (kind in GUARDING and (expects_error(node) if guarded else is_guard(node))):
            continue
        todo += children(node)


def bound_names(scope: ast.AST) -> Scope:
    """The names a scope binds; `import a.b` binds a."""
    names: Scope = {}
    nodes = list(inside(scope))
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update({(a.asname or a.name.split(".")[0]): a.name for a in node.names})
        elif isinstance(node, ast.ImportFrom):
            names.update({(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names})
        elif isinstance(node, ast.Global | ast.Nonlocal):
            names.update(dict.fromkeys(node.names, OWN))
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names[node.id] = OWN
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = OWN
        elif isinstance(node, ast.arg):
            names[node.arg] = OWN
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names[node.name] = OWN
    return names


def own_attributes(nodes: Iterable[ast.AST]) -> set[str]:
    """Names of the functions and attributes that source defines, and of those it asks for by `hasattr`."""
    own = set()
    for n in nodes:
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef):
            own.add(n.name)
        elif isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store):
            own.add(n.attr)
        elif isinstance(n, ast.Call) and getattr(n.func, "id", "") in ("hasattr", "getattr"):
            own |= {str(a.value) for a in n.args[1:2] if isinstance(a, ast.Constant)}
    return own


def imported_modules(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules that import statements name, dotted."""
    modules = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return modules


# Code for both Pythons


def written_for_both(nodes: Iterable[ast.AST]) -> bool:
    """Whether source asks if it runs in Python 2 or 3: then a name of Python 2 is used where there is one."""
    return any(
        (isinstance(n, ast.Compare) and _asks_for_3(n))
        or (isinstance(n, ast.Name) and BOTH.fullmatch(n.id))
        or (isinstance(n, ast.Attribute) and BOTH.fullmatch(n.attr))
        for n in nodes
    )


def is_guard(node: ast.AST) -> bool:
    """Whether code sees for itself if Python 2's names are there."""
    if isinstance(node, ast.If | ast.IfExp):
        return _asks_for_version(node.test)
    if isinstance(node, ast.Try):
        caught = {n.id for h in node.handlers if h.type for n in walk(h.type) if isinstance(n, ast.Name)}
        importing = any(isinstance(n, ast.Import | ast.ImportFrom) for n in node.body)
        return bool(caught & GUARDS) or (importing and any(h.type is None for h in node.handlers))
    return expects_error(node)


def expects_error(node: ast.AST) -> bool:
    """Whether a `with` statement or a call is there to see something fail, as tests do."""
    if isinstance(node, ast.Call):
        return len(node.args) > 1 and _called(node) in RAISES
    if not isinstance(node, ast.With):
        return False
    for call in (i.context_expr for i in node.items):
        if isinstance(call, ast.Call):
            name = _called(call)
            if name in RAISES or (name == "suppress" and any(getattr(a, "id", "") in GUARDS for a in call.args)):
                return True
    return False


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _asks_for_version(test: ast.expr) -> bool:
    words = (n.attr if isinstance(n, ast.Attribute) else getattr(n, "id", "") for n in walk(test))
    return any(VERSION.search(word) for word in words)


def _asks_for_3(node: ast.Compare) -> bool:
    """`sys.version_info[0] == 2`, `sys.version_info < (3, 0)`, `sys.version > "3"`, `str is bytes`."""
    sides = [node.left, *node.comparators]
    if {getattr(s, "id", "") for s in sides} == {"str", "bytes"} and isinstance(node.ops[0], ast.Is | ast.IsNot):
        return True
    if not any(isinstance(n, ast.Attribute) and VERSION.search(n.attr) for s in sides for n in walk(s)):
        return False
    return any(_is_3(s.elts[0] if isinstance(s, ast.Tuple) and s.elts else s) for s in sides)


def _is_3(node: ast.expr) -> bool:
    value = node.value if isinstance(node, ast.Constant) else None
    return value in (2, 3, "2", "3") or (type(value) is int and value >> 24 == 3) or value in ("3.0", b"3")
