"""The code in an answer: fenced blocks, `<pre>` of HTML, or the answer itself where it is bare code among prose.

Fences of three or more backticks or tildes count where they are labelled as Python; of those labelled as a console or
as text, what follows Python's prompts. What has no label is taken for code if it looks like it and parses, or looks
very much like it (python_likeness.py). Doctest prompts are taken out with their output, notebooks' magics become
`pass`. A block knows where it stands: `block.place(line, column)` is a place in the answer.
"""

from __future__ import annotations

import html
import re
import textwrap
from dataclasses import dataclass, replace

from mlx_gemma.data.python.likeness import first_code_line, is_expression, is_prose, is_python, parses

PYTHON = {"python", "py", "python3", "py3", "python2", "py2", "pycon", "ipython", "ipython3", "doctest", "sage"}
CONSOLE = {
    "console",
    "text",
    "txt",
    "plaintext",
    "plain",
    "output",
    "terminal",
    "shell",
    "session",
    "repl",
    "bash",
    "sh",
}
DIRECTIVES = {"code", "block", "cell", "sourcecode", "code-block", "code-cell", "shell-session"}
FENCE = re.compile(r"^[ \t]*(?P<mark>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)$")
PROMPT = re.compile(r"[ \t]*(?:(?:>>>|\.\.\.)(?: |$)|In \[\d*\]: ?|[ \t]+\.{3,}: ?)")
FIRST_PROMPT = re.compile(r"[ \t]*(?:>>>(?: |$)|In \[\d*\]:)")
FAILED = re.compile(r"\s*(?:Traceback \(most recent call last\)|\w*(?:Error|Exception)\b)")
MAGIC = re.compile(r"(?P<indent>\s*)(?:%{1,2}[a-zA-Z]\w*(?:\s|$)|![\w./]|\?{1,2}\w|[\w.]+\?{1,2}\s*$)")
PYTHON_CELLS = {"time", "timeit", "capture", "prun", "python", "python3", "python2", "pypy"}
MARKUP = re.compile(r"&(?:#\w{1,8}|\w{1,31});")


@dataclass(frozen=True)
class CodeBlock:
    """Python source, and where it stands in the answer.

    Attributes:
        first_line: the answer's line (from 1) that it starts at.
        closed: whether its fence was closed; true where there is none.
        fenced: whether something shows its end: a closed block was meant to end there.
        columns: for every line, the characters before it that are not source: indent, prompts.
        markup: the lines as they were, where HTML's entities were decoded in them.
    """

    source: str
    first_line: int
    closed: bool
    fenced: bool = True
    columns: tuple[int, ...] = ()
    markup: tuple[str, ...] = ()

    def place(self, line: int, column: int) -> tuple[int, int]:
        """A place in the source (from 1) as line and column of the answer."""
        at = line - 1
        before = self.columns[at] if at < len(self.columns) else 0
        place = before + column
        if at < len(self.markup):
            for entity in MARKUP.finditer(self.markup[at]):
                if entity.start() + 1 < place:
                    place += len(entity[0]) - len(html.unescape(entity[0]))
        return self.first_line + at, place


@dataclass
class _Part:
    """Lines of an answer that may be code."""

    lines: list[str]
    first_line: int
    closed: bool
    label: str
    offset: int = 0  # characters before the first line


def code_blocks(text: str) -> list[CodeBlock]:
    """The Python blocks of an answer, in order; empty where there is no code.

    Linear in the text. Where nothing is labelled, what looks like code is parsed, some 0.1 ms for a short function.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if any("```" in line or "~~~" in line for line in lines) and (parts := _fences(lines)) is not None:
        labelled = any(p.label in PYTHON for p in parts)
        return [b for part in parts if (b := _wanted(part, labelled)) is not None]
    if "<pre" in text.lower() and (parts := _preformatted(lines)):
        return [b for part in parts if (b := _wanted(part, False, decode=True)) is not None]
    return _bare(lines)


# Fences and HTML


def _fences(lines: list[str]) -> list[_Part] | None:
    """What stands between fences; None where there is no fence."""
    parts, opened, mark, label = [], None, "", ""
    for i, line in enumerate(lines):
        fence = FENCE.match(line) if "```" in line or "~~~" in line else None
        if fence is None:
            continue
        if opened is None:
            opened, mark, label = i, fence["mark"], _label(fence["info"])
        elif fence["mark"].startswith(mark) and not fence["info"].strip():
            parts.append(_Part(lines[opened + 1 : i], opened + 2, True, label))
            opened = None
    if opened is not None:
        parts.append(_Part(lines[opened + 1 :], opened + 2, False, label))
    return parts or None


def _label(info: str) -> str:
    """The language of a fence's first line: of `python`, `{.python .numberLines}`, `{code-cell} ipython3`, `a.py`."""
    info = info[:200].lower()
    words = [w for w in re.findall(r"[\w+#-]+", info) if w not in DIRECTIVES]
    if re.match(r"\s*[\w./-]+\.py\b", info):
        return "python"
    return words[0] if words else ""


def _preformatted(lines: list[str]) -> list[_Part]:
    """What `<pre>` holds, up to `</pre>`; its first and last line without the tags."""
    parts: list[_Part] = []
    opened, offset, label, held = 0, 0, "", list[str]()
    for i, line in enumerate(lines):
        lower = line.lower()
        start = 0
        if not opened:
            if (start := lower.find("<pre")) < 0:
                continue
            tags = re.match(r"(?:<(?:pre|code|span)\b[^<>]{0,200}>)+", line[start:], re.IGNORECASE)
            if tags is None:
                continue
            language = re.search(r"(?:language|lang|brush)[-:= \"']{1,3}(\w+)", tags[0].lower())
            opened, label, held = i + 1, language[1] if language else "", []
            start = offset = start + tags.end()
        end = lower.find("</pre", start)
        inner = line[start : end if end >= 0 else None]
        held.append(inner.replace("</code>", ""))
        if end >= 0:
            parts.append(_Part(held, opened, True, label, offset))
            opened = 0
    if opened:
        parts.append(_Part(held, opened, False, label, offset))
    return parts


def _wanted(part: _Part, labelled: bool, *, decode: bool = False) -> CodeBlock | None:
    """The block of a part that is Python; `labelled`: others are, so that one without a label is likely output."""
    lines = part.lines
    markup: tuple[str, ...] = ()
    if decode:
        markup = (" " * part.offset + lines[0], *lines[1:]) if any("&" in line for line in lines) else ()
        lines = [html.unescape(line) for line in lines]
    prompts = _is_session(lines)
    if part.label not in PYTHON:
        if part.label and not (prompts and part.label in CONSOLE):
            return None
        if not prompts and not is_python(lines, others=labelled):
            return None
    block = _block(lines, part.first_line, closed=part.closed)
    if block and part.offset:
        block = replace(block, columns=(block.columns[0] + part.offset, *block.columns[1:]))
    return replace(block, markup=markup) if block and markup else block


# Bare code


def _bare(lines: list[str]) -> list[CodeBlock]:
    """Code without a fence: the runs of lines between paragraphs of prose that are Python."""
    if _is_session(lines):
        block = _block(lines, 1, fenced=False)
        return [block] if block else []
    runs, quoted = [list[int]()], ""
    for i, line in enumerate(lines):
        if not quoted and is_prose(line):
            runs.append([])
        else:
            runs[-1].append(i)
            quoted = _still_quoted(line, quoted)
    blocks = []
    for run in runs:
        part = [lines[i] for i in run]
        start = first_code_line(part)
        if start is not None:
            blocks.append(_block(part[start:], run[start] + 1, fenced=False))
    if not blocks and is_expression(lines):
        blocks.append(_block(lines, 1, fenced=False))
    return [b for b in blocks if b is not None]


def _still_quoted(line: str, quoted: str) -> str:
    """The triple quotes that a line leaves open, if it begins inside `quoted`."""
    for mark in re.findall(r"\"\"\"|'''", line) if '"""' in line or "'''" in line else ():
        if not quoted:
            quoted = mark
        elif mark == quoted:
            quoted = ""
    return quoted


# Blocks


def _block(lines: list[str], first_line: int, *, closed: bool = True, fenced: bool = True) -> CodeBlock | None:
    """A block without prompts, magics and common indent; None where its first line hands it to another language."""
    lines = lines or [""]
    cell = next((line for line in lines if line.strip()), "").lstrip()
    if cell.startswith("%%") and re.split(r"\W", cell[2:], maxsplit=1)[0] not in PYTHON_CELLS:
        return None
    source = _without_prompts(lines) if _is_session(lines) else lines
    if any(map(MAGIC.match, source)) and not parses(source):
        source = [f"{m['indent']}pass" if (m := MAGIC.match(line)) else line for line in source]
    code = textwrap.dedent("\n".join(source))
    columns = tuple(len(a) - len(b) for a, b in zip(lines, code.split("\n"), strict=True))
    return CodeBlock(code, first_line, closed, fenced, columns)


def _is_session(lines: list[str]) -> bool:
    """Whether Python's prompts stand in the lines, outside of triple quotes: a docstring's doctest makes no session."""
    if not any(map(FIRST_PROMPT.match, lines)):
        return False
    quoted = ""
    for line in lines:
        if not quoted and FIRST_PROMPT.match(line):
            return True
        quoted = _still_quoted(line, quoted)
    return False


def _without_prompts(lines: list[str]) -> list[str]:
    """What was typed in: no output, and nothing whose output is an error, since it is there to show that."""
    typed, example = list[str](), list[int]()
    for i, line in enumerate(lines):
        found = PROMPT.match(line)
        if found and FIRST_PROMPT.match(line):
            example = []
        if found:
            example.append(i)
        elif FAILED.match(line):
            for j in example:
                typed[j] = ""
            example = []
        typed.append(line[found.end() :] if found else "")
    return typed
