"""What kind of Python an answer holds: Python 3, Python 2, broken, truncated, or no code at all.

The rule: what `ast` refuses and Python 2's grammar accepts, with one of its constructs in it, is Python 2; what both
refuse is broken, or truncated where it just ends. What parses is Python 3, unless it uses names or idioms that only
Python 2 had.

Python 3 is the version that runs this: 3.11 calls `print(f"{d["a"]}")` broken, which 3.12 accepts. A report names it.
"""

from __future__ import annotations

import ast
import codeop
import warnings
from dataclasses import dataclass
from typing import Literal

from mlx_gemma.data.code_blocks import CodeBlock, code_blocks
from mlx_gemma.data.python2_grammar import Finding, grammar_findings, parses_as_python2
from mlx_gemma.data.python2_names import name_findings

__all__ = ["Finding", "Verdict", "classify", "classify_source", "parses_as_python2"]

Kind = Literal["python3", "python2", "broken", "truncated", "none"]
WORST_FIRST: tuple[Kind, ...] = ("python2", "broken", "truncated", "python3", "none")


@dataclass(frozen=True)
class Verdict:
    """The kind of an answer's code and what was found in it; lines count from the answer's first."""

    kind: Kind
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        if not self.findings:
            return self.kind
        first = self.findings[0]
        more = f" (and {len(self.findings) - 1} more)" if len(self.findings) > 1 else ""
        return f"line {first.line}, column {first.column}: {first.name}: {first.message}{more}"


def classify(answer: str) -> Verdict:
    """The verdict on an answer: fenced blocks where there are any, else bare code; of several blocks the worst.

    About 0.3 ms for a short function in Python 3, 2 ms where fissix must be asked.
    """
    verdicts = [_classify_block(block) for block in code_blocks(answer)]
    kinds = {v.kind for v in verdicts}
    kind: Kind = next((k for k in WORST_FIRST if k in kinds), "none")
    return Verdict(kind, tuple(f for v in verdicts if v.kind == kind for f in v.findings))


def _classify_block(block: CodeBlock) -> Verdict:
    verdict = classify_source(block.source)
    last = block.source.count("\n") + 1
    if not block.closed and not (verdict.kind == "python2" and any(f.line < last for f in verdict.findings)):
        # Half a line is no evidence: `print(x)` cut short is a print statement.
        finding = Finding(block.first_line + last - 1, 1, "open fence", "the code block is never closed")
        return Verdict("truncated", (finding,))
    shift = block.first_line - 1
    moved = (Finding(f.line + shift, f.column, f.name, f.message) for f in verdict.findings)
    return Verdict(verdict.kind, tuple(moved))


def classify_source(source: str) -> Verdict:
    """The verdict on a whole source text; `none` where it holds no statement."""
    source = source.removeprefix("\ufeff")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes, in Python 3.12 and later
            try:
                return _parsed(source)
            except SyntaxError as e:
                return _refused(source, e)
    except (ValueError, RecursionError, MemoryError) as e:
        return Verdict("broken", (Finding(1, 1, "not parsed", str(e) or "nested too deeply"),))


def _parsed(source: str) -> Verdict:
    # Python 3.14 would take `except X, e:` for `except (X, e):`; the version named here does not.
    tree = ast.parse(source, feature_version=(3, 13))
    if not tree.body:
        return Verdict("none")
    try:
        # What the grammar lets through, a `return` outside a function for one. Notebooks may await at top level.
        compile(tree, "<answer>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as e:
        return Verdict("broken", (_error_finding(e),))
    findings = tuple(name_findings(tree))
    return Verdict("python2" if findings else "python3", findings)


def _refused(source: str, error: SyntaxError) -> Verdict:
    if found := grammar_findings(source):
        return Verdict("python2", tuple(found))
    finding = _error_finding(error)
    if isinstance(error, TabError) and parses_as_python2(source):
        return Verdict(
            "python2", (Finding(finding.line, finding.column, "tabs among spaces", "indent by one of them"),)
        )
    return Verdict("truncated" if _ends_early(source, error) else "broken", (finding,))


def _error_finding(error: SyntaxError) -> Finding:
    return Finding(error.lineno or 1, error.offset or 1, "syntax error", error.msg)


def _ends_early(source: str, error: SyntaxError) -> bool:
    """Whether source that does not parse could go on to something that does: it stops in a block, bracket or line."""
    lines = source.rstrip().split("\n")
    in_last_line = (error.lineno or 0) >= len(lines) and not isinstance(error, IndentationError)
    at_its_end = max(error.offset or 0, error.end_offset or 0) > len(lines[-1]) or "unterminated string" in error.msg
    if in_last_line and at_its_end:
        return True
    try:
        return codeop.compile_command(source, "<answer>", "exec") is None
    except (SyntaxError, ValueError, OverflowError):
        return False
