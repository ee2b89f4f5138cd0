"""Scopes of parsed source: which names are bound where, and to what. For python2_names.py and python2_idioms.py."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from mlx_gemma.data.python2_grammar import Finding

OWN = ""  # bound by the source itself
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SCOPES = (*FUNCTIONS, ast.ClassDef)
RAISES = {"raises", "assertRaises", "assertRaisesRegex"}

Scope = dict[str, str]  # name -> the module or module.member it was imported from, or OWN


def place(node: ast.stmt | ast.expr | ast.alias, name: str, message: str) -> Finding:
    return Finding(node.lineno, node.col_offset + 1, name, message)


def inside(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of one scope: functions, classes and code that shall fail are handed out but not entered."""
    todo = list(ast.iter_child_nodes(scope))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, SCOPES) and not expects_error(node):
            todo.extend(ast.iter_child_nodes(node))


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


def imported_modules(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules that import statements name, dotted."""
    modules = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return modules


def expects_error(node: ast.AST) -> bool:
    """Whether a `with` statement is there to see its body fail, as tests do."""
    calls = [i.context_expr for i in node.items] if isinstance(node, ast.With) else []
    names = [c.func for c in calls if isinstance(c, ast.Call)]
    return any((n.attr if isinstance(n, ast.Attribute) else getattr(n, "id", "")) in RAISES for n in names)
