"""Bandit's tests, asked by a walk of our own: `findings(tree, ids)`.

Bandit's own visitor takes the square of the length on some sources (two minutes for an f-string of 24,000 lines), stops
where code is nested deeply, and obeys `# nosec`, which makes no code safe to learn from. This walk is a loop, visits
calls and function definitions only, and hands each test what it reads from its context: node, names, imports, parents.
tests/data/test_unsafe.py compares the two on real code.
"""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any


def findings(tree: ast.AST, ids: frozenset[str]) -> Iterator[Any]:
    """Bandit's `Issue` (test_id, severity, confidence, text, lineno, col_offset, cwe) of each finding, in source order.

    Args:
        tree: of `ast.parse`; its nodes get an attribute `_bandit_parent`, which bandit's tests read.
        ids: the tests to ask, of those that look at calls and function definitions. A test that raises finds nothing.
    """
    tests, context_of, name_of = _bandit(ids)
    imports: dict[str, None] = {}  # a set that keeps the order
    aliases: dict[str, str] = {}
    looked_for: dict[str, tuple[int, bool]] = {}
    for node in _in_source_order(tree):
        context = {"node": node, "imports": imports, "import_aliases": aliases, "looked_for": looked_for}
        if isinstance(node, ast.Import | ast.ImportFrom):
            _note(node, imports, aliases)
        elif isinstance(node, ast.Call):
            try:
                name = name_of(node, aliases)
            except RecursionError:  # a name of a thousand parts is none of those looked for
                continue
            context |= {"call": node, "qualname": name, "name": name.split(".")[-1]}
            yield from _ask(tests["Call"], context_of(context), node)
        elif isinstance(node, ast.FunctionDef):
            yield from _ask(tests["FunctionDef"], context_of(context | {"function": node, "name": node.name}), node)


def _ask(tests: list[Any], context: Any, node: ast.Call | ast.FunctionDef) -> Iterator[Any]:
    for test in tests:
        try:
            issue = test(context, test._config) if hasattr(test, "_config") else test(context)
        except Exception:  # as bandit itself does: a test is not written for all code there is
            continue
        if issue is not None:
            issue.test_id = issue.test_id or test._test_id
            issue.lineno = node.lineno if issue.lineno is None else issue.lineno
            issue.col_offset = node.col_offset if issue.col_offset == -1 else issue.col_offset
            yield issue


def _in_source_order(tree: ast.AST) -> Iterator[ast.AST]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        children = list(ast.iter_child_nodes(node))
        for child in children:
            child._bandit_parent = node  # type: ignore[attr-defined]
        waiting += reversed(children)


def _note(node: ast.Import | ast.ImportFrom, imports: dict[str, None], aliases: dict[str, str]) -> None:
    """What a name stands for after an import."""
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
    for alias in node.names:
        imports[prefix + alias.name] = None
        if alias.asname or prefix:
            aliases[alias.asname or alias.name] = prefix + alias.name


@cache
def _bandit(ids: frozenset[str]) -> tuple[dict[str, list[Any]], Any, Any]:
    """The tests by the kind of node they look at, bandit's Context, and its name of a call. 0.2 s, once a process."""
    show = warnings.formatwarning
    from bandit.core import config, context, test_set, utils

    warnings.formatwarning = show  # which bandit replaces for the whole process
    logging.getLogger("bandit").setLevel(logging.CRITICAL + 1)
    chosen = test_set.BanditTestSet(config.BanditConfig(), {"include": sorted(ids)})
    tests = {kind: chosen.get_tests(kind) for kind in ("Call", "FunctionDef")}

    class Context(context.Context):  # type: ignore[misc]
        def is_module_imported_like(self, module: str) -> bool:
            """Whether the name is in an import's; looks at new imports only, where bandit's looks at all again."""
            imports, looked_for = self._context["imports"], self._context["looked_for"]
            seen, found = looked_for.get(module, (0, False))
            if not found and seen < len(imports):
                found = any(module in name for name in islice(imports, seen, None))
                looked_for[module] = (len(imports), found)
            return bool(found)

    return tests, Context, utils.get_call_name
