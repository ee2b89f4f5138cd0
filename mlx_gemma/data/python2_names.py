"""Python 2 by its names: source that Python 3 parses and cannot run, because it uses what only Python 2 had.

Builtins (`xrange`), methods (`.has_key`), modules (`urllib2`), members of modules (`string.join`), special methods
(`__nonzero__`) and what python2_idioms.py adds. A name that the source itself binds is its own and no finding, nor is
one inside a guard (`try: unicode except NameError: ...`, `if sys.version_info < (3,): ...`).
"""

from __future__ import annotations

import ast

from mlx_gemma.data.python2_grammar import Finding
from mlx_gemma.data.python2_idioms import idiom_findings
from mlx_gemma.data.python2_scopes import SCOPES, Scope, bound_names, expects_error, imported_modules, place
from mlx_gemma.data.python2_tables import (
    ATTRIBUTES,
    BUILTINS,
    CALLED_BUILTINS,
    KEPT_BY,
    MEMBERS,
    METHODS,
    MODULES,
    SPECIAL_METHODS,
    TEXT_CODECS,
)

GUARDS = {"ImportError", "ModuleNotFoundError", "NameError", "AttributeError"}
VERSION_WORDS = {"version_info", "hexversion", "PY2", "PY3", "PYTHON2", "PYTHON3", "IS_PY2", "IS_PY3"}


def name_findings(tree: ast.Module) -> list[Finding]:
    """All findings in parsed source, in order of place. One pass over the tree; about 0.2 ms for a short function."""
    visitor = _Names(tree)
    visitor.visit(tree)
    found = visitor.findings + idiom_findings(tree, visitor.own)
    return sorted(set(found), key=lambda f: (f.line, f.column, f.name))


class _Names(ast.NodeVisitor):
    def __init__(self, tree: ast.Module) -> None:
        self.findings: list[Finding] = []
        self.scopes: list[Scope] = [bound_names(tree)]
        nodes = list(ast.walk(tree))
        self.own = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        self.own |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        imported = {m.split(".")[0] for m in imported_modules(nodes)}
        self.own |= {method for method, modules in KEPT_BY.items() if modules & imported}
        self.foreign_star = any(
            isinstance(n, ast.ImportFrom) and n.names[0].name == "*" and _may_bind(n.module or "") for n in nodes
        )

    def found(self, node: ast.stmt | ast.expr | ast.alias, name: str, instead: str) -> None:
        self.findings.append(place(node, name, f"Python 3 has {instead}"))

    def origin(self, name: str) -> str | None:
        """Where a name comes from: OWN, a module, or None for a builtin."""
        return next((s[name] for s in reversed(self.scopes) if name in s), None)

    def is_module(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and bool(self.origin(node.id))

    # Guards and scopes

    def visit_With(self, node: ast.With) -> None:
        if not expects_error(node):
            self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> None:
        caught = {n.id for h in node.handlers if h.type for n in ast.walk(h.type) if isinstance(n, ast.Name)}
        importing = any(isinstance(n, ast.Import | ast.ImportFrom) for n in node.body)
        if not (caught & GUARDS or (importing and any(h.type is None for h in node.handlers))):
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        words = {n.attr for n in ast.walk(node.test) if isinstance(n, ast.Attribute)}
        words |= {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}
        if not words & VERSION_WORDS:
            self.generic_visit(node)

    visit_IfExp = visit_If  # type: ignore[assignment]

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, SCOPES):
            self.scopes.append(bound_names(node))
        super().generic_visit(node)
        if isinstance(node, SCOPES):
            self.scopes.pop()

    # Names, imports, attributes, classes

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in BUILTINS and self.origin(node.id) is None and not self.foreign_star:
            self.found(node, node.id, BUILTINS[node.id])

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if (top := alias.name.split(".")[0]) in MODULES:
                self.found(node, f"import {top}", MODULES[top])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            return
        if module in MODULES:
            self.found(node, f"import {module}", MODULES[module])
        for alias in node.names:
            if alias.name in MEMBERS.get(module, ()):
                self.found(node, f"{module}.{alias.name}", f"no {alias.name} in {module}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        if node.attr in ATTRIBUTES and node.attr not in self.own:
            self.found(node, f".{node.attr}", ATTRIBUTES[node.attr])
        if isinstance(node.value, ast.Name):
            module = self.origin(node.value.id)
            if module and node.attr in MEMBERS.get(module, ()):
                self.found(node, f"{module}.{node.attr}", f"no {node.attr} in {module}")

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = node.func
        if isinstance(called, ast.Name):
            if called.id in CALLED_BUILTINS and self.origin(called.id) is None and not self.foreign_star:
                self.found(called, called.id, CALLED_BUILTINS[called.id])
        elif isinstance(called, ast.Attribute) and called.attr not in self.own and not self.is_module(called.value):
            if called.attr in METHODS and not (node.args or node.keywords):
                self.found(called, f".{called.attr}()", METHODS[called.attr])
            elif called.attr == "has_key" and len(node.args) == 1:
                self.found(called, ".has_key()", "`key in x`")
            elif called.attr in ("encode", "decode") and (codec := _literal(node)) in TEXT_CODECS:
                self.found(called, f".{called.attr}({codec!r})", "the codecs module for this")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.generic_visit(node)
        names = bound_names(node)
        for n in node.body:
            if not isinstance(n, ast.FunctionDef):
                continue
            if n.name in SPECIAL_METHODS and SPECIAL_METHODS[n.name] not in names and "__eq__" not in names:
                self.found(n, n.name, SPECIAL_METHODS[n.name])
            if n.name == "next" and "__next__" not in names and _iterates_over_itself(node):
                self.found(n, "def next", "__next__")
        if "__metaclass__" in names:
            self.found(node, "__metaclass__", "class X(metaclass=...)")


def _literal(call: ast.Call) -> str:
    """The first argument, where it is a literal string; else empty."""
    value = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else ""
    return value.replace("-", "_").lower() if isinstance(value, str) else ""


def _may_bind(module: str) -> bool:
    """Whether `from module import *` may bring Python 2's builtins along, as six.moves does."""
    return any(word in module for word in ("six", "compat", "past", "builtins"))


def _iterates_over_itself(node: ast.ClassDef) -> bool:
    iters = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__iter__"]
    returns = [n.value for i in iters for n in ast.walk(i) if isinstance(n, ast.Return)]
    return any(isinstance(value, ast.Name) and value.id == "self" for value in returns)
