"""Python 2 by its names: source that Python 3 parses and cannot run, because it uses what only Python 2 had.

Builtins (`xrange`), methods (`.has_key`), modules (`urllib2`), members of modules (`string.join`), special methods
(`__nonzero__`) and what python2_idioms.py adds. A name that the source itself binds is its own and no finding; nor is
one inside a guard, or in source that asks which Python runs it (python2_scopes.py). A name that other libraries have
too (`.next()`, `import commands`) counts where the source shows that Python 2's is meant.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from mlx_gemma.data.python.python2_grammar import Finding
from mlx_gemma.data.python.python2_idioms import idiom_findings
from mlx_gemma.data.python.python2_scopes import (
    GUARDING,
    SCOPES,
    Scope,
    bound_names,
    children,
    imported_modules,
    inside,
    is_guard,
    own_attributes,
    place,
    walk,
    written_for_both,
)
from mlx_gemma.data.python.python2_tables import (
    ATTRIBUTES,
    BUILTINS,
    CALLED_BUILTINS,
    EVERYDAY_MODULES,
    FUNCTION_NAMES,
    ITERATOR_CALLS,
    ITERATOR_NAMES,
    KEPT_BY,
    MEMBERS,
    METHODS,
    MODULES,
    SPECIAL_METHODS,
    TEXT_CODECS,
)

Node = ast.stmt | ast.expr | ast.alias


@dataclass(frozen=True)
class Known:
    """What the code before a block has bound, at its top level, and the methods and attributes it defines."""

    names: Scope = field(default_factory=dict)
    attributes: frozenset[str] = frozenset()

    def after(self, tree: ast.Module) -> Known:
        """What is known behind `tree` too."""
        return Known(self.names | bound_names(tree), self.attributes | own_attributes(walk(tree)))


NOTHING = Known()


def name_findings(tree: ast.Module, known: Known = NOTHING) -> list[Finding]:
    """All findings in parsed source, in order of place, columns in bytes of UTF-8.

    Linear in the tree, without recursion. About 0.2 ms for a short function.
    """
    nodes = walk(tree)
    if written_for_both(nodes):
        return []
    names = _Names(tree, nodes, known)
    names.search(tree)
    found = names.findings + idiom_findings(tree, names.own, known.names.keys())
    return sorted(set(found), key=lambda f: (f.line, f.column, f.name))


class _Names:
    def __init__(self, tree: ast.Module, nodes: list[ast.AST], known: Known) -> None:
        self.findings: list[Finding] = []
        self.scopes: tuple[Scope, ...] = (known.names, bound_names(tree))
        self.own = own_attributes(nodes) | known.attributes
        imported = {m.split(".")[0] for m in imported_modules(nodes)}
        imported |= {m.split(".")[0] for m in known.names.values()}
        self.own |= {method for method, modules in KEPT_BY.items() if modules & imported}
        stars = {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"}
        self.foreign_star = any(_may_bind(module) for module in stars)
        self.star_members = {name for m in stars for name in MEMBERS.get(m, ())} if len(stars) == 1 else set()
        self.generators, self.iterators = _iterators(nodes)
        self.members: dict[str, set[str]] = {}  # of each name, for words that may be a module's
        for n in nodes:
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name):
                self.members.setdefault(n.value.id, set()).add(n.attr)

    def search(self, tree: ast.AST) -> None:
        todo: list[tuple[ast.AST, tuple[Scope, ...]]] = [(child, self.scopes) for child in children(tree)]
        look = {
            ast.Name: self._name,
            ast.Import: self._import,
            ast.ImportFrom: self._import_from,
            ast.Attribute: self._attribute,
            ast.Call: self._call,
            ast.ClassDef: self._class,
        }
        while todo:
            node, self.scopes = todo.pop()
            kind = type(node)
            if kind in GUARDING and is_guard(node):
                continue
            if isinstance(node, ast.FunctionDef) and node.name in SPECIAL_METHODS:
                continue  # only Python 2 calls such a method
            if (rule := look.get(kind)) is not None:
                rule(node)  # type: ignore[operator]
            scopes = (*self.scopes, bound_names(node)) if kind in SCOPES else self.scopes
            todo += [(child, scopes) for child in children(node)]

    def found(self, node: Node, name: str, instead: str) -> None:
        self.findings.append(place(node, name, f"Python 3 has {instead}"))

    def origin(self, name: str) -> str | None:
        """Where a name comes from: OWN, a module, or None for a builtin."""
        return next((s[name] for s in reversed(self.scopes) if name in s), None)

    # Names, imports, attributes, classes

    def _name(self, node: ast.Name) -> None:
        if node.id in BUILTINS and self.origin(node.id) is None and not self.foreign_star:
            self.found(node, node.id, BUILTINS[node.id])
        elif node.id in self.star_members and self.origin(node.id) is None:
            self.found(node, f"string.{node.id}", f"no {node.id} in string")

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.name if alias.name in MODULES else alias.name.split(".")[0]
            everyday = EVERYDAY_MODULES.get(name)
            if name in MODULES and (everyday is None or everyday & self.members.get(alias.asname or name, set())):
                self.found(node, f"import {name}", MODULES[name])

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            return
        names = {alias.name for alias in node.names}
        if module in MODULES and (module not in EVERYDAY_MODULES or names & EVERYDAY_MODULES[module]):
            self.found(node, f"import {module}", MODULES[module])
        for name in sorted(names & MEMBERS.get(module, frozenset())):
            self.found(node, f"{module}.{name}", f"no {name} in {module}")

    def _attribute(self, node: ast.Attribute) -> None:
        if node.attr in ATTRIBUTES and node.attr not in self.own and self._is_function(node.value):
            self.found(node, f".{node.attr}", ATTRIBUTES[node.attr])
        if isinstance(node.value, ast.Name):
            name = node.value.id
            module = self.origin(name)
            if module is None and name != "string":  # a snippet leaves its imports out, and has strings of that name
                module = name
            if module and node.attr in MEMBERS.get(module, ()):
                self.found(node, f"{module}.{node.attr}", f"no {node.attr} in {module}")

    def _call(self, node: ast.Call) -> None:
        called = node.func
        if isinstance(called, ast.Name):
            instead, counts = CALLED_BUILTINS.get(called.id, ("", ()))
            if len(node.args) in counts and self.origin(called.id) is None and not self.foreign_star:
                self.found(called, called.id, instead)
        elif isinstance(called, ast.Attribute) and called.attr not in self.own and not self._is_module(called.value):
            bare = not (node.args or node.keywords)
            if bare and called.attr == "next" and not self._is_iterator(called.value):
                return
            if bare and called.attr in METHODS:
                self.found(called, f".{called.attr}()", METHODS[called.attr])
            elif called.attr == "has_key" and len(node.args) == 1:
                self.found(called, ".has_key()", "`key in x`")
            elif called.attr in ("encode", "decode") and (codec := _literal(node)) in TEXT_CODECS:
                self.found(called, f".{called.attr}({codec!r})", "the codecs module for this")
            elif called.attr == "decode" and _is_text(called.value):
                self.found(called, "decode of text", "text that is decoded; only bytes have .decode")

    def _is_function(self, node: ast.expr) -> bool:
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        return name in FUNCTION_NAMES or name in self.own

    def _is_module(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and bool(self.origin(node.id))

    def _is_iterator(self, node: ast.expr) -> bool:
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        return name in ITERATOR_NAMES or name in self.iterators or _gives_iterator(node, self.generators)

    def _class(self, node: ast.ClassDef) -> None:
        names = bound_names(node)
        for n in node.body:
            if not isinstance(n, ast.FunctionDef) or _is_stub(n):
                continue
            if n.name in SPECIAL_METHODS and SPECIAL_METHODS[n.name] not in names and "__eq__" not in names:
                self.found(n, n.name, SPECIAL_METHODS[n.name])
            if n.name == "next" and "__next__" not in names and _iterates_over_itself(node):
                self.found(n, "def next", "__next__")
        if "__metaclass__" in names:
            self.found(node, "__metaclass__", "class X(metaclass=...)")


def _iterators(nodes: list[ast.AST]) -> tuple[set[str], set[str]]:
    """Names of the generator functions of a source, and of the variables that hold nothing but iterators."""
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef)]
    generators = {f.name for f in functions if any(isinstance(n, ast.Yield | ast.YieldFrom) for n in inside(f))}
    held: dict[str, bool] = {}
    for n in nodes:
        if isinstance(n, ast.Assign) and len(n.targets) == 1 and isinstance(n.targets[0], ast.Name):
            name = n.targets[0].id
            held[name] = held.get(name, True) and _gives_iterator(n.value, generators)
    return generators, {name for name, all_iterators in held.items() if all_iterators}


def _gives_iterator(node: ast.expr, generators: set[str]) -> bool:
    if isinstance(node, ast.GeneratorExp):
        return True
    if not isinstance(node, ast.Call):
        return False
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return function in ITERATOR_CALLS or function in generators


def _literal(call: ast.Call) -> str:
    """The first argument, where it is a literal string; else empty."""
    value = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else ""
    return value.replace("-", "_").lower() if isinstance(value, str) else ""


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_stub(function: ast.FunctionDef) -> bool:
    """A body of `...` alone: a protocol names the method, and nobody calls it."""
    return all(isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in function.body)


def _may_bind(module: str) -> bool:
    """Whether `from module import *` may bring Python 2's builtins along, as six.moves does."""
    return any(word in module for word in ("six", "compat", "past", "builtins"))


def _iterates_over_itself(node: ast.ClassDef) -> bool:
    iters = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__iter__"]
    returns = [n.value for i in iters for n in walk(i) if isinstance(n, ast.Return)]
    return any(isinstance(value, ast.Name) and value.id == "self" for value in returns)
