"""What kind of Python an answer holds: Python 3, Python 2, broken, truncated, or no code at all.

The rule: what `ast` refuses and Python 2's grammar accepts, with one of its constructs in it, is Python 2; what both
refuse is broken, or truncated where it just ends; but what lacks a single closing bracket before its fence is broken,
since its end was reached. What parses is Python 3, unless it uses names or idioms that only Python 2 had.

Python 3 is the version that runs this: 3.11 calls `print(f"{d["a"]}")` broken, which 3.12 accepts. A report names it.
"""

from __future__ import annotations

import ast
import builtins
import codeop
import re
import warnings
from dataclasses import dataclass, replace
from typing import Literal

from mlx_gemma.data.python.code_blocks import CodeBlock, code_blocks
from mlx_gemma.data.python.likeness import parses
from mlx_gemma.data.python.python2_grammar import Finding, grammar_findings, parses_as_python2
from mlx_gemma.data.python.python2_names import NOTHING, Known, name_findings
from mlx_gemma.data.python.python2_scopes import SCOPES, walk

__all__ = ["Finding", "Verdict", "classify", "classify_source", "parses_as_python2"]

Kind = Literal["python3", "python2", "broken", "truncated", "none"]
WORST_FIRST: tuple[Kind, ...] = ("python2", "broken", "truncated", "python3", "none")

OPEN_FENCE, OPEN_BRACKET, ENDS_EARLY = "fence never closed", "bracket never closed", "ends early"
LONG, MANY_FUNCTIONS = 20_000, 1_000  # characters; functions and classes
NEVER_CLOSED = re.compile(r"'([(\[{])' was never closed")
CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Verdict:
    """The kind of an answer's code and what was found in it; lines and columns are the answer's, from 1."""

    kind: Kind
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        if not self.findings:
            return self.kind
        first = self.findings[0]
        more = f" (and {len(self.findings) - 1} more)" if len(self.findings) > 1 else ""
        return f"line {first.line}, column {first.column}: {first.name}: {first.message}{more}"


def classify(answer: str) -> Verdict:
    """The verdict on an answer, of several blocks the worst; what one block binds is known in those after it.

    Linear in the answer's length. About 0.3 ms for a short function in Python 3, 2 ms where fissix must be asked.
    """
    verdicts, known = [], NOTHING
    blocks = code_blocks(answer)
    for block in blocks:
        verdict, tree = _classify_block(block, known)
        verdicts.append(verdict)
        if tree is not None and block is not blocks[-1]:
            known = known.after(tree)
    kinds = {v.kind for v in verdicts}
    kind: Kind = next((k for k in WORST_FIRST if k in kinds), "none")
    return Verdict(kind, tuple(f for v in verdicts if v.kind == kind for f in v.findings))


def classify_source(source: str) -> Verdict:
    """The verdict on a whole source text; `none` where it holds no statement."""
    return _classify(source, NOTHING)[0]


def _classify_block(block: CodeBlock, known: Known) -> tuple[Verdict, ast.Module | None]:
    verdict, tree = _classify(block.source, known)
    last = block.source.count("\n") + 1
    if not block.closed and not (verdict.kind == "python2" and any(f.line < last for f in verdict.findings)):
        # Half a line is no evidence: `print(x)` cut short is a print statement.
        finding = Finding(block.first_line + last - 1, 1, OPEN_FENCE, "the code block is never closed")
        return Verdict("truncated", (finding,)), tree
    moved = tuple(
        replace(f, line=at[0], column=at[1]) for f in verdict.findings for at in [block.place(f.line, f.column)]
    )
    if not block.fenced and any(f.name == OPEN_BRACKET for f in moved):
        return Verdict("truncated", tuple(replace(f, name=ENDS_EARLY) for f in moved)), tree
    return Verdict(verdict.kind, moved), tree


def _classify(source: str, known: Known) -> tuple[Verdict, ast.Module | None]:
    """The verdict on a source, given what is known before it; and its tree, where Python 3 parses it."""
    source = source.removeprefix("\ufeff")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes, in Python 3.12 and later
            try:
                return _parsed(source, known)
            except SyntaxError as e:
                return _refused(source, e), None
    except (ValueError, RecursionError, MemoryError) as e:
        return Verdict("broken", (Finding(1, 1, "not parsed", str(e) or "nested too deeply"),)), None


def _parsed(source: str, known: Known) -> tuple[Verdict, ast.Module | None]:
    # Python 3.14 would take `except X, e:` for `except (X, e):`; the version named here does not.
    tree = ast.parse(source, feature_version=(3, 13))
    if not tree.body:
        return Verdict("none"), tree
    lines = [] if source.isascii() else source.split("\n")
    try:
        # What the grammar lets through, a `return` outside a function for one. Notebooks may await at top level.
        # Python 3.11 compiles equal functions in time quadratic in their number: thousands are left at that.
        if len(source) < LONG or sum(isinstance(n, SCOPES) for n in walk(tree)) < MANY_FUNCTIONS:
            compile(tree, "<answer>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as e:
        return Verdict("broken", (_in_characters(_error_finding(e), lines),)), None
    findings = tuple(_in_characters(f, lines) for f in name_findings(tree, known))
    return Verdict("python2" if findings else "python3", findings), tree


def _in_characters(finding: Finding, lines: list[str]) -> Finding:
    """A finding whose column counts bytes, as `ast` does, with one that counts characters."""
    if not 0 < finding.line <= len(lines):
        return finding
    before = lines[finding.line - 1].encode(errors="replace")[: finding.column - 1]
    return replace(finding, column=len(before.decode(errors="ignore")) + 1)


def _refused(source: str, error: SyntaxError) -> Verdict:
    # fissix has no limit to its nesting, and takes 0.1 ms a bracket.
    if "too many nested" not in error.msg and (found := grammar_findings(source)):
        return Verdict("python2", tuple(found))
    finding = _error_finding(error)
    if isinstance(error, TabError) and parses_as_python2(source):
        return Verdict(
            "python2", (Finding(finding.line, finding.column, "tabs among spaces", "indent by one of them"),)
        )
    if not _ends_early(source, error):
        return Verdict("broken", (finding,))
    if (bracket := NEVER_CLOSED.match(error.msg)) and _only_lacks(CLOSING[bracket[1]], source.rstrip()):
        return Verdict("broken", (replace(finding, name=OPEN_BRACKET),))
    return Verdict("truncated", (replace(finding, name=ENDS_EARLY),))


def _error_finding(error: SyntaxError) -> Finding:
    return Finding(max(error.lineno or 1, 1), max(error.offset or 1, 1), "syntax error", error.msg)


def _only_lacks(closing: str, source: str) -> bool:
    """Whether a bracket makes source whole, and its last word is whole too: it is in it before, as `nu` of `number` is
    not."""
    if word := re.search(r"\w+$", source):
        before = re.search(rf"\b{word[0]}\b", source[: word.start()])
        if before is None or hasattr(builtins, word[0]):
            return False
    return source[-1] not in "([{," and parses([source + closing])


def _ends_early(source: str, error: SyntaxError) -> bool:
    """Whether source that does not parse could go on to something that does: it stops in a block, bracket or line.

    Its last word may be half of one, so that it is also asked without it: `large = [x f` was to be `[x for`.
    """
    if _could_go_on(source, error):
        return True
    shorter = re.sub(r"\w+$", "", source.rstrip())
    return NEVER_CLOSED.match(error.msg) is not None and shorter != source.rstrip() and _could_go_on(shorter, None)


def _could_go_on(source: str, error: SyntaxError | None) -> bool:
    lines = source.rstrip().split("\n")
    if error is not None:
        in_last_line = (error.lineno or 0) >= len(lines) and not isinstance(error, IndentationError)
        at_its_end = max(error.offset or 0, error.end_offset or 0) > len(lines[-1])
        if in_last_line and not error.msg.startswith("f-string") and (at_its_end or "unterminated string" in error.msg):
            return True
    try:
        return codeop.compile_command(source, "<answer>", "exec") is None
    except (SyntaxError, ValueError, OverflowError):
        return False
