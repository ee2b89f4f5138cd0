"""What expressions of one function are, as far as its source tells: for python2_lists.py and python2_division.py.

A variable is what all of its values are: `mid = n / 2` and nothing else makes `mid` a quotient. One that is a
parameter, a loop's target or assigned with others may hold anything.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Container

from mlx_gemma.data.python.python2_scopes import inside

ITERATORS = {"map", "filter", "zip"}
VIEWS = {"keys", "values", "items"}
DICTS = {"dict", "defaultdict", "Counter", "OrderedDict", "set", "frozenset"}

Test = Callable[[ast.expr], bool]


class Values:
    """One function (or a module's top level): its nodes, guards left out, and what its variables were assigned.

    Args:
        own_methods: methods that are the source's own, or kept by a library it imports.
        own_names: names that the source binds, so that they are no builtins.
    """

    def __init__(self, scope: ast.AST, own_methods: set[str], own_names: Container[str]) -> None:
        self.views = VIEWS - own_methods
        self.iterators = {name for name in ITERATORS if name not in own_names}
        self.ranges = {name for name in ("range",) if name not in own_names}
        self.nodes = list(inside(scope, guarded=False))
        self.assigned: dict[str, list[ast.expr | None]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self.assigned.setdefault(node.targets[0].id, []).append(node.value)
        stored = Counter(n.id for n in self.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        stored.update(n.arg for n in self.nodes if isinstance(n, ast.arg))
        for name, values in self.assigned.items():
            if stored[name] > len(values):  # bound in another way too, to who knows what
                values.append(None)
        self._known: dict[tuple[str, str], bool] = {}

    def every(self, node: ast.expr, test: Test) -> bool:
        """Whether `test` holds of an expression, or of every value given to the variable that it is."""
        if not (isinstance(node, ast.Name) and node.id in self.assigned):
            return test(node)
        key = (node.id, test.__name__)
        if key not in self._known:
            self._known[key] = all(v is not None and test(v) for v in self.assigned[node.id])
        return self._known[key]

    # Tests

    def iterator(self, node: ast.expr) -> bool:
        return calls(node, self.iterators)

    def view(self, node: ast.expr) -> bool:
        return (
            isinstance(node, ast.Call)
            and not node.args
            and not node.keywords
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in self.views
            and not _is_query(node.func.value)
        )

    def unordered(self, node: ast.expr) -> bool:
        """An iterator or a view: no index, no order to change."""
        return self.iterator(node) or self.view(node)

    def range(self, node: ast.expr) -> bool:
        return calls(node, self.ranges)

    def no_list(self, node: ast.expr) -> bool:
        return self.unordered(node) or self.range(node)

    def mapping(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Dict | ast.Set | ast.DictComp | ast.SetComp) or calls(node, DICTS)


def calls(node: ast.expr, names: Container[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def called(function: ast.expr) -> str:
    """The last word of what is called: `f` of `f()` and of `a.f()`."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def is_int(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _is_query(node: ast.expr) -> bool:
    """`Model.objects.values()`: databases give lists here."""
    while isinstance(node, ast.Call | ast.Attribute):
        if isinstance(node, ast.Attribute) and node.attr in ("objects", "query"):
            return True
        node = node.func if isinstance(node, ast.Call) else node.value
    return False
