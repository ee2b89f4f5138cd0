"""Whether text that nobody labelled is Python: prose, output, JSON and other languages are not.

Signs alone mislead (`x = 5 apples`, Kotlin's `import java.util.List`), and so does the parser (`yes`, `3, 4`), so both
are asked: a line of code must be there, and the text must parse, or it must have lines that are Python's own and none
of another language's.
"""

from __future__ import annotations

import ast
import keyword
import re
import textwrap
import warnings

LONGEST = 300  # characters of a line that are looked at: some of the patterns are quadratic in the worst case
LONGEST_EXPRESSION = 2_000

# Python's own, though not all of them alone: "for example in Python:" is prose.
OWN = re.compile(
    r"""\s*(?:
        (?:async\s+)?def\s+\w+\s*\([^{;=]*(?:=[^{;]*)?(?:[:\\,(\w)]|\.\.\.)\s*(?:\#.*)?$
      | class\s+\w+\s*(?:\([\w\s,.=]*\))?\s*:\s*(?:\#.*|pass)?$
      | import\s+\w+(?:\s+as\s+\w+)?\s*$ | from\s+[\w.]+\s+import\s+[\w*(]
      | (?:print|raise)\s*["'(%]
    )""",
    re.VERBOSE,
)
HEADER = re.compile(
    r"""\s*(?:
        for\s+\(?\w+(?:\s*,\s*\(?\w+\)?)*\)?\s+in\s+[^{]+:\s*$
      | (?:(?:while|if|elif|with|except)\b[^{]+|else|try|finally|except):\s*$
    )""",
    re.VERBOSE,
)
PLAIN = re.compile(
    r"""\s*(?:
        def\s+\w+\s*\( | class\s+\w+\s*(?:\(.*\))?\s*: | @\w[\w.]*(?:\(.*\))?\s*$
      | print\s+\w[\w.\[\]]*\s*$ | print\s*>> | for\s+[\w\s,()]+\s+in\s+.+:\s*$
      | import\s+\w[\w.]*(?:\s+as\s+\w+)?(?:\s*,\s*\w[\w.]*)*\s*$
      | return\s+[\w"'(\[{-].*[^.]$
      | [A-Za-z_][\w.\[\]"']*\s*(?:=|\+=|-=|\*=|/=)\s*[^\s=] | \w[\w.]*\([^)]*\)\s*$
    )""",
    re.VERBOSE,
)
PRINT = re.compile(r"\s*print\s*(?:[\"'\w]|>>)")

# Another language's lines; asked only of what Python does not parse.
FOREIGN = re.compile(
    r"""\s*(?:
        (?:let|const|var|my|local|auto|int|float|double|char|bool|string|void)\s+[$\w*]+\s*(?:[=:;(]|$)
      | (?:public|private|protected|static|func|fn|fun|function)\s[\w\s<>\[\],.]*[({=]
      | (?:struct|interface|package|namespace|using|module)\s+[\w.:]+\s*[;{]
      | (?:fi|done|esac|end|then|do)\s*;?\s*$ | [$]\w*\s+\S | [$]\w+\s*= | \#\s*include\b | <\?php | </?\w+[^<>]*>\s*$
      | (?:echo|puts)\s+["'$] | (?:printf|println!?)\s*\( | (?:fmt|System|console|std)(?:\.|::)\w
      | (?:SELECT|INSERT|UPDATE|CREATE|DELETE)\s+\S+\s | (?:diff\s|index\s|@@\s|\+\+\+\s|---\s)
      | (?:if|for|while|else|switch)\b.*\{\s*$ | \}\s*(?:else\b.*)?$ | \w+\s+::\s | //\s | \(defun
      | def\s.*(?:=|\{|\bdo)\s*$ | class\s+\w+\s*(?:<|\s:\s*[A-Z]|\{)
    )""",
    re.VERBOSE,
)
NEVER_PYTHON = re.compile(r"\s*(?:console\.log\(|document\.|System\.out\.|Console\.Write|\[[A-Za-z][\w. -]*\]\s*$)")
CHANGE = re.compile(r"([-+])\s*\w")

KEYWORDS = "|".join([*keyword.kwlist, "case", "exec", "match", "print"])
PROSE = re.compile(
    r"""
        (?:[-*+\u2022]|\d{1,3}[.)])\s+[^\s=] | \*\*\w | \| | >\s   # an item of a list, bold, a table, a quotation
      | [A-Z][\w\s'\u2019,()/-]*[.:!?]\s*$                        # a sentence, or what announces code
      | [^\#"'=\[{]*\w\w[.!]\s*$
      | (?!(?:KEYWORDS)\b)["'(`]?[A-Za-z][\w'\u2019-]*[,:;]?(?:\s+["'(`]{0,2}[A-Za-z][\w'\u2019-]*[`)"',.:;!?]*){2}
    """.replace("KEYWORDS", KEYWORDS),
    re.VERBOSE,
)
SYNTAX = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda | ast.Call | ast.Slice


def is_code_line(line: str) -> bool:
    """Whether a line looks like Python: prose does not, other languages may."""
    return PLAIN.match(line[:LONGEST]) is not None or OWN.match(line[:LONGEST]) is not None


def is_prose(line: str) -> bool:
    """Whether a line is a sentence, an item of a list or the like; an indented one is not."""
    return line[:1].strip() != "" and PROSE.match(line[:LONGEST]) is not None


def is_python(lines: list[str], *, others: bool = False) -> bool:
    """Whether lines without a label are Python.

    Args:
        others: other blocks are labelled as Python; then `total = 15` is what a program printed.
    """
    short = [line[:LONGEST] for line in lines if line.strip()]
    code = sum(map(is_code_line, short))
    if not code or any(map(NEVER_PYTHON.match, short)):
        return False
    own = any(map(OWN.match, short))
    headers = sum(HEADER.match(line) is not None for line in short)
    if others and not (own or headers):
        return False
    if parses(lines):
        return True
    if (
        any(map(FOREIGN.match, short))
        or _is_diff(short)
        or sum(line.rstrip().endswith(";") for line in short) > code / 2
    ):
        return False
    return own or (code > 1 and (headers > 0 or any(map(PRINT.match, short))))


def first_code_line(lines: list[str]) -> int | None:
    """Where Python begins in a paragraph without a label, from 0; None where there is none."""
    whole = is_python(lines)
    if whole and parses(lines):
        return next(i for i, line in enumerate(lines) if line.strip())
    start = next((i for i, line in enumerate(lines) if is_code_line(line) or HEADER.match(line[:LONGEST])), 0)
    if whole:
        return start
    before = [line[:LONGEST] for line in lines[:start]]
    if start and not any(FOREIGN.match(b) or NEVER_PYTHON.match(b) for b in before) and is_python(lines[start:]):
        return start
    return None


def is_expression(lines: list[str]) -> bool:
    """Whether the whole text is one expression of Python, and not a word with something in brackets."""
    text = "\n".join(lines).strip()
    if len(text) > LONGEST_EXPRESSION or not ("(" in text or "[" in text):
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(n, SYNTAX) for n in ast.walk(tree)) and not re.search(r"[a-z]{4,} \(", text)


def parses(lines: list[str]) -> bool:
    """Whether Python 3 parses the lines, common indent aside."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(textwrap.dedent("\n".join(lines)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _is_diff(lines: list[str]) -> bool:
    return {m[1] for line in lines if (m := CHANGE.match(line))} == {"-", "+"}
