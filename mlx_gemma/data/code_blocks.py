"""The code in an answer: fenced blocks, or the answer itself where it is bare code.

Fences of three or more backticks or tildes count; those labelled as another language do not, nor do unlabelled ones
that do not look like code. Doctest prompts and notebook magics are taken out. A block keeps its lines where they were:
line n of the block is line `first_line + n - 1` of the answer.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

PYTHON = {"python", "py", "python3", "py3", "python2", "py2", "pycon", "ipython", "ipython3"}
FENCE = re.compile(r"^[ \t]*(?P<mark>`{3,}|~{3,})[ \t]*\{?\.?(?P<language>[\w+#-]*)")

# A line that prose does not have. Weaker signs ("if ...:", "for example:") alone make no code.
CODE_LINE = re.compile(
    r"""^\s*(
        def\s+\w+\s*\( | class\s+\w+\s*(\(.*\))?\s*: | @\w[\w.]*(\(.*\))?\s*$
      | import\s+\w[\w.]*(\s+as\s+\w+)?(\s*,\s*\w[\w.]*)*\s*$ | from\s+[\w.]+\s+import\s+[\w*(]
      | for\s+[\w\s,()]+\s+in\s+.+:\s*$ | (print|raise)\s*["'(%] | print\s+\w[\w.\[\]]*\s*$
      | return\s+[\w"'(\[{-].*[^.]$
      | [A-Za-z_][\w.\[\]"']*\s*(=|\+=|-=)\s*[^\s=] | \w[\w.]*\([^)]*\)\s*$
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class CodeBlock:
    """Python source, the line of the answer it starts at (from 1), and whether its fence was closed."""

    source: str
    first_line: int
    closed: bool


def code_blocks(text: str) -> list[CodeBlock]:
    """The Python blocks of an answer, in order; empty where there is no code. Linear in the text."""
    lines = text.replace("\r\n", "\n").split("\n")
    blocks, opened, mark, wanted = [], None, "", False
    for i, line in enumerate(lines):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, mark = i, fence["mark"]
            language = fence["language"].lower()
            wanted = language in PYTHON or not language
            labelled = bool(language)
        elif opened is not None and fence and fence["mark"].startswith(mark) and not fence["language"]:
            if wanted:
                blocks.append((lines[opened + 1 : i], opened + 2, True, labelled))
            opened = None
    if opened is not None and wanted:
        blocks.append((lines[opened + 1 :], opened + 2, False, labelled))
    if any(FENCE.match(line) for line in lines):
        return [_block(b, at, closed) for b, at, closed, labelled in blocks if labelled or _looks_like_code(b)]
    return _bare(lines)


def _bare(lines: list[str]) -> list[CodeBlock]:
    """Code without a fence: from the first line of code to the last, or to a paragraph of prose."""
    if any(line.lstrip().startswith(">>> ") for line in lines):
        return [_block(lines, 1, True)]
    code = [i for i, line in enumerate(lines) if _is_code(line)]
    if not code:
        return []
    end = code[-1] + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][:1] in " \t)]}#"):
        end += 1
    return [_block(lines[code[0] : end], code[0] + 1, True)]


def _is_code(line: str) -> bool:
    return CODE_LINE.match(line[:300]) is not None  # the pattern is quadratic in the worst case


def _looks_like_code(lines: list[str]) -> bool:
    return any(_is_code(line) or line.lstrip().startswith(">>> ") for line in lines)


def _block(lines: list[str], first_line: int, closed: bool) -> CodeBlock:
    if any(line.lstrip().startswith(">>>") for line in lines):
        lines = [_without_prompt(line) for line in lines]
    lines = ["" if re.match(r"\s*(%%?\w|![\w.])", line) else line for line in lines]
    return CodeBlock(textwrap.dedent("\n".join(lines)), first_line, closed)


def _without_prompt(line: str) -> str:
    found = re.match(r"\s*(>>>|\.\.\.)( |$)", line)
    return line[found.end() :] if found else ""  # without a prompt it is output
