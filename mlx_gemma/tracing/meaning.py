"""Do two answers mean the same? And the positions of a trace where answers of different meaning compete.

Same: code that is the same program but for blanks, comments, docstrings and the names of its own variables; text that
is the same but for case, blanks and punctuation. Everything else is different. A rule of thumb: `i + 1` and `1 + i` are
different programs to it.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from mlx_gemma.data.code_blocks import code_blocks
from mlx_gemma.data.python_source import classify
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.tracing.branches import Branch, branches
from mlx_gemma.tracing.record import Position, Trace


@dataclass(frozen=True)
class Rivals:
    """A position where another token was within the margin, and leads to an answer of another meaning.

    Attributes:
        kinds: what both answers hold, by `data.python_source` (`python3`, `python2`, … or `none`).
    """

    position: Position
    branch: Branch
    kinds: tuple[str, str]


def find(
    gemma: Gemma, trace: Trace, *, margin: float = 0.5, least: float = 0.05, most: int = 20, length: int = 128
) -> list[Rivals]:
    """Positions where a rival is less than `margin` (in probability) behind, and means something else.

    Args:
        least: probability of a rival that is followed.
        most: how many are, the most probable first.
        length: tokens of a continuation; one that is cut is compared as far as it goes.

    Cost: one greedy continuation for each rival.
    """
    found = []
    for branch in branches(gemma, trace, most=most, length=length, least=least):
        position = trace.positions[branch.position]
        if position.probability - branch.alternative.probability >= margin:
            continue
        tokens = [p.token for p in trace.positions]
        rival = [*tokens[: branch.position], branch.alternative.token, *(c.token for c in branch.continuation)]
        own, other = _text(gemma, tokens), _text(gemma, rival)
        if branch.finish == "length":  # as far as it goes
            own = own[: len(other)]
        if not same(own, other):
            found.append(Rivals(position, branch, (classify(own).kind, classify(other).kind)))
    return sorted(found, key=lambda r: r.position.index)


def _text(gemma: Gemma, tokens: list[int]) -> str:
    return gemma.template.decode([t for t in tokens if t not in gemma.stop_tokens])


def same(a: str, b: str) -> bool:
    """Whether two answers mean the same; see above."""
    codes = [[_program(block.source) for block in code_blocks(text)] for text in (a, b)]
    if any(codes):
        return codes[0] == codes[1]
    return _plain(a) == _plain(b)


def _program(source: str) -> str:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return " ".join(source.split())
    return ast.dump(_Renamed(tree).visit(tree))


def _plain(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


class _Renamed(ast.NodeTransformer):
    """Without docstrings, and its own variables numbered as they come."""

    def __init__(self, tree: ast.AST) -> None:
        nodes = list(ast.walk(tree))
        own = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        own |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        # Keyword arguments of the program's own functions keep their names: who calls them from outside sees these.
        self.own, self.names = own, dict[str, str]()

    def _name(self, name: str) -> str:
        return self.names.setdefault(name, f"v{len(self.names)}") if name in self.own else name

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._name(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._name(node.arg), node.annotation and self.visit(node.annotation))

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        return super().generic_visit(node)
