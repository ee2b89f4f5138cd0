"""The `form` check: what does not keep a row from being trained, but is learned with it, or lost on the way.

    hidden characters    controls, escape sequences, zero-width and bidirectional characters (CVE-2021-42574)
    wrong encoding       U+FFFD, and UTF-8 that was read as Windows-1252 ("Ã©", "â€™")
    line ends            CRLF, or both kinds in one text
    answers              nothing but an empty fence, white space that the template strips
    fields               of a row or turn that take part in a conversation, and that no template is given

`Shapes` counts the shapes of rows by file: a file that mixes them was put together from several.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from mlx_gemma.data.checks.found import Found, reasons
from mlx_gemma.data.checks.mojibake import MOJIBAKE
from mlx_gemma.data.formats import TURN_FIELDS, Row, says_something
from mlx_gemma.data.reason import Reason
from mlx_gemma.data.visible import one_line

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]+")
FORMAT = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]+")
REPLACEMENT = re.compile("\ufffd+")
EMBEDDING = re.compile("[\u202a-\u202e\u2066-\u2069]")
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
FLAG = "\U0001f3f4"  # the flags of regions are written with tag characters behind it
LINE_END = re.compile(r"\r\n|\n|\r")
FENCE = re.compile(r"[`~]{3,}\s*[\w+#-]*")

# Keys beside the messages that are a part of the conversation in one tool or another, and are not rendered.
TALK_FIELDS = ("system", "history", "tools", "functions", "documents", "images")
THOUGHT_FIELDS = ("reasoning", "reasoning_content", "thinking")


def form(row: Row) -> Iterator[Reason]:
    """Everything found in a row's texts, and what of it is not rendered. About 10 us a row of this project's size."""
    yield from reasons("form", _characters(row))
    yield from _answer(row.answer)
    yield from _fields(row)


def _characters(row: Row) -> Iterator[Found]:
    for turn, message in enumerate(row.messages, 1):
        text = message["content"]
        for run in CONTROL.finditer(text):
            name = "escape sequence" if "\x1b" in run[0] or "\x9b" in run[0] else "control character"
            yield Found(name, f"{name} {_named(run[0])}", turn, text, run.start())
        if "\r" in text:
            yield from _line_ends(turn, text)
        if not text.isascii():
            yield from _beyond_ascii(turn, text)


def _line_ends(turn: int, text: str) -> Iterator[Found]:
    kinds = Counter(LINE_END.findall(text))
    at = text.index("\r")
    if len(kinds) > 1:
        counted = ", ".join(f"{n} {end!r}" for end, n in sorted(kinds.items()))
        yield Found("mixed line ends", f"mixed line ends ({counted})", turn, text, at)
    else:
        yield Found("carriage returns", f"lines end in {next(iter(kinds))!r}", turn, text, at)


def _beyond_ascii(turn: int, text: str) -> Iterator[Found]:
    for run in REPLACEMENT.finditer(text):
        yield Found("replacement character", "U+FFFD stands for what could not be decoded", turn, text, run.start())
    for run in FORMAT.finditer(text):
        if EMBEDDING.search(run[0]):
            yield Found("bidirectional control", f"bidirectional control {_named(run[0])}", turn, text, run.start())
        elif not _in_its_place(text, run):
            yield Found("hidden character", f"hidden character {_named(run[0])}", turn, text, run.start())
    for run in MOJIBAKE.finditer(text):
        what = f"UTF-8 that was read as another encoding: {one_line(run[0], 20)!r}"
        yield Found("mojibake", what, turn, text, run.start())


def _in_its_place(text: str, run: re.Match[str]) -> bool:
    """Joiners in scripts and emoji that need them, tags of a flag, direction marks in a text of both directions."""
    around = text[max(0, run.start() - 1) : run.start()] + text[run.end() : run.end() + 1]
    if set(run[0]) <= {"\u200c", "\u200d"}:
        return len(run[0]) == 1 and not around.isascii()
    if set(run[0]) <= {"\u200e", "\u200f", "\u061c"}:
        return RIGHT_TO_LEFT.search(text) is not None
    return run[0][0] >= "\U000e0000" and around[:1] == FLAG


def _named(run: str) -> str:
    first = f"U+{ord(run[0]):04X}"
    name = unicodedata.name(run[0], "")
    return first + (f" ({name.lower()})" if name else "") + (f" and {len(run) - 1} more beside it" if run[1:] else "")


def _answer(text: str) -> Iterator[Reason]:
    lines = map(str.strip, text.splitlines()) if text.lstrip()[:3] in ("```", "~~~") else [text]
    if all(not line or FENCE.fullmatch(line) for line in lines):
        yield Reason("form", "the answer is nothing but an empty code fence", "empty answer")
    elif not text.isascii() and not FORMAT.sub("", text).strip():
        yield Reason("form", "the answer is nothing but hidden characters", "empty answer")
    head, tail = len(text) - len(text.lstrip()), len(text) - len(text.rstrip())
    if head and text[head - 1] in " \t":
        yield Reason("form", f"answer: the template strips the first line's indentation ({head})", "indented answer")
    elif head or tail > 1 or (tail and not text.endswith("\n")):
        what = f"answer: the template strips white space, {head} characters before and {tail} behind"
        yield Reason("form", what, "white space at the ends")


def _fields(row: Row) -> Iterator[Reason]:
    turns = row.extra.get(TURN_FIELDS)
    seen = set[str]()
    for turn, fields in turns.items() if isinstance(turns, dict) else ():
        for key in fields if isinstance(fields, dict) else ():
            if key not in seen:
                seen.add(key)
                name = f"turn field {str(key)[:40]!r}"
                yield Reason("form", f"turn {turn} has {str(key)[:40]!r}, which is not rendered", name)
    for key in TALK_FIELDS + THOUGHT_FIELDS:
        if says_something(row.extra.get(key)):
            yield Reason("form", f"the row has {key!r}, which is not rendered", f"row field {key!r}")


class Shapes:
    """How many rows of each shape every file holds."""

    def __init__(self) -> None:
        self._rows: Counter[tuple[str, str]] = Counter()

    def add(self, row: Row) -> None:
        self._rows[row.where.rpartition(":")[0], row.shape] += 1

    def by_file(self) -> dict[str, dict[str, int]]:
        """file -> shape -> rows, the commonest first; files in reading order."""
        files: dict[str, dict[str, int]] = {}
        for (file, shape), rows in self._rows.most_common():
            files.setdefault(file, {})[shape] = rows
        return {file: files[file] for file in dict.fromkeys(file for file, _ in self._rows)}

    def mixed(self) -> list[str]:
        """A line for every file of more than one shape."""
        files = ((file, shapes) for file, shapes in self.by_file().items() if len(shapes) > 1)
        return [
            f"{file}: mixed shapes ({', '.join(f'{n:,} {s}' for s, n in shapes.items())})" for file, shapes in files
        ]
