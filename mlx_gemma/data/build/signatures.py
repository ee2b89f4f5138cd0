"""What a task's solution is called as: its function's name, its parameters, and calls with their results.

Read from the solution and its checks, not run: `sum_list([1, 2, 3]) == 6` is an example, as all in it is literal.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from mlx_gemma.data.build.families import Task


@dataclass(frozen=True)
class Example:
    """A call and its result, both as source text and as values."""

    call: str
    arguments: tuple[str, ...]
    values: tuple[Any, ...]
    result: str
    value: Any


@dataclass(frozen=True)
class Signature:
    """The one function of a solution; `examples` have different calls, with an argument for every parameter."""

    name: str
    parameters: tuple[str, ...]
    examples: tuple[Example, ...]


def signature(task: Task) -> Signature | None:
    """The signature of a solution of one function, besides imports; None where it is a script, a class or several."""
    body = [n for n in ast.parse(task.python3).body if not isinstance(n, ast.Import | ast.ImportFrom)]
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
        return None
    function = body[0]
    if function.args.vararg or function.args.kwarg or function.args.kwonlyargs or function.decorator_list:
        return None
    parameters = tuple(a.arg for a in function.args.args)
    found = (_example(check, function.name) for check in task.check)
    examples = {e.call: e for e in found if e is not None and len(e.arguments) == len(parameters)}
    return Signature(function.name, parameters, tuple(examples.values()))


def _example(check: str, name: str) -> Example | None:
    tree = ast.parse(check, mode="eval").body
    if not (isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Eq)):
        return None
    call, result = tree.left, tree.comparators[0]
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name) or call.keywords:
        return None
    try:
        values, value = tuple(ast.literal_eval(a) for a in call.args), ast.literal_eval(result)
    except ValueError:
        return None

    def text(node: ast.expr) -> str:
        return ast.get_source_segment(check, node) or ""

    return Example(text(call), tuple(map(text, call.args)), values, text(result), value)
