"""Do two answers mean the same? And the positions of a trace where answers of different meaning compete.

Same: code that is the same program but for blanks, comments, docstrings and the names of its own variables; text that
is the same but for case, blanks and marks between sentences. Everything else is different. A rule of thumb: to it
`i + 1` and `1 + i` are different programs. Code that no Python 3 parses, or that was cut, is compared as its words, in
which every name but Python's own, a function's and an attribute's counts as a variable.
"""

from __future__ import annotations

import ast
import builtins
import io
import keyword
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from mlx_gemma.data.python.code_blocks import code_blocks
from mlx_gemma.data.python.python2_tables import BUILTINS as PYTHON2
from mlx_gemma.data.python.source import classify
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.tracing.branches import Branch, branches
from mlx_gemma.tracing.record import Position, Trace

OWN = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *PYTHON2, "print", "exec"}
SIGNS = re.compile(r"[+-]?\w+|[^\w\s.,;:!?'\"()`-]")  # of text: words, and what is no mark between sentences
BLANK = (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER)


@dataclass(frozen=True)
class Rivals:
    """A position where another token was within the margin, and leads to an answer of another meaning.

    Attributes:
        kinds: what both answers hold, by `data.python` (`python3`, `python2`, … or `none`).
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
        cut = branch.finish == "length" or trace.finish == "length"
        if not same(own, other, cut=cut):
            found.append(Rivals(position, branch, (classify(own).kind, classify(other).kind)))
    return sorted(found, key=lambda r: r.position.index)


def _text(gemma: Gemma, tokens: list[int]) -> str:
    return gemma.template.decode([t for t in tokens if t not in gemma.stop_tokens])


def same(a: str, b: str, *, cut: bool = False) -> bool:
    """Whether two answers mean the same; see above. With `cut`, as far as both go."""
    codes = [[block.source for block in code_blocks(text)] for text in (a, b)]
    if any(codes) and not cut:
        return [_program(source) for source in codes[0]] == [_program(source) for source in codes[1]]
    if any(codes):
        one, other = (_words("\n".join(blocks)) for blocks in codes)
    else:
        one, other = (SIGNS.findall(text.casefold()) for text in (a, b))
    length = min(len(one), len(other)) - 1 if cut else None  # the last word may be half of one
    return one[:length] == other[:length]


def _program(source: str) -> str:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "\0".join(_words(source))
    return ast.dump(_Renamed(tree).visit(tree))


def _words(source: str) -> list[str]:
    """Tokens of Python 3 or 2, indentation among them, its variables numbered as they come."""
    out: list[str] = []
    names: dict[str, str] = {}
    before = ""
    for token in _tokens(source):
        text = token.string
        if token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE):
            text = tokenize.tok_name[token.type]
        elif token.type == tokenize.NAME and text not in OWN and before not in ("def", "class", ".", "import", "from"):
            text = names.setdefault(text, f"v{len(names)}")
        before = token.string
        out.append(text)
    return out


def _tokens(source: str) -> Iterator[tokenize.TokenInfo]:
    """As far as they go: the end of what was cut is no error."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type not in BLANK:
                yield token
    except (tokenize.TokenError, SyntaxError):
        return


class _Renamed(ast.NodeTransformer):
    """Without docstrings, and its own variables numbered as they come."""

    def __init__(self, tree: ast.AST) -> None:
        nodes = list(ast.walk(tree))
        own = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        own |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        own |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler) and n.name}
        own -= {n.arg for n in nodes if isinstance(n, ast.keyword) and n.arg}  # a caller names these
        self.own, self.names = own - OWN, dict[str, str]()

    def _name(self, name: str) -> str:
        return self.names.setdefault(name, f"v{len(self.names)}") if name in self.own else name

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._name(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._name(node.arg), node.annotation and self.visit(node.annotation))

    def visit_Global(self, node: ast.Global) -> ast.AST:
        return ast.Global([self._name(name) for name in node.names])

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        return ast.Nonlocal([self._name(name) for name in node.names])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        node.name = node.name and self._name(node.name)
        return super().generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        documented = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        return super().generic_visit(node)
