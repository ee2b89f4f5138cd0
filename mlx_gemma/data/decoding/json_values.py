"""JSON values over any number of lines: one array of rows (`[{...}, {...}]`), or objects one after another.

Brackets and commas between the values are skipped without judging them. Behind a value that is broken the reading goes
on where a line begins as the value's own line did; a value that does not begin its line has no such place.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from mlx_gemma.data.decoding.json_text import DECODER, MAX_LINE, TOO_LONG, Bad, bad, flat

CHUNK = 2**16  # bytes
BETWEEN = re.compile(r"[\s,\[\]\ufeff]*")
INVALID = re.compile("[\udc80-\udcff]")  # a byte that is no UTF-8, as `surrogateescape` decodes it
NEAR_END = 16  # characters; an error so close to the end of what was read may be the end's


def json_values(stream: io.BufferedReader[Any]) -> Iterator[tuple[str, Any]]:
    """(line where it begins, value or Bad) of every value. Memory: a few times MAX_LINE.

    Raises:
        OSError: as the file system or the decompression has it.
    """
    text = _Window(stream)
    while text.skip():
        line, start = text.line, text.line_start
        try:
            value = text.value()
        except (ValueError, RecursionError) as e:
            lost = "; the rest of its line is not read" if start is None else ""
            yield str(line), Bad(bad(e).what + lost, bad(e).fix)
            text.resume(start or "")
        else:
            yield str(line), value


class _Window:
    """The part of a text that is looked at: `at` is in line `line` of the file."""

    def __init__(self, stream: io.BufferedReader[Any]) -> None:
        self.stream, self.text, self.at, self.line, self.ended = stream, "", 0, 1, False
        self.whole_line = True  # whether the text begins where a line does
        self.decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode

    def more(self, size: int = CHUNK) -> bool:
        """Read on, forgetting what lies before `at`, but for the beginning of its line; False at the end."""
        data = self.stream.read(size)
        self.ended = not data
        line_begin = self.text.rfind("\n", 0, self.at) + 1
        begin = max(line_begin, self.at - CHUNK)
        self.whole_line = begin == line_begin and (begin > 0 or self.whole_line)
        self.text, self.at = self.text[begin:] + self.decode(data, self.ended), self.at - begin
        return not self.ended

    def advance(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def skip(self) -> bool:
        """Go to the next value; False if there is none."""
        while True:
            found = BETWEEN.match(self.text, self.at)
            assert found is not None  # it may be empty
            self.advance(found.end())
            if self.at < len(self.text):
                return True
            if not self.more():
                return False

    @property
    def line_start(self) -> str | None:
        """What a line like this value's begins with, up to its bracket; None where something is before the value."""
        begin = self.text.rfind("\n", 0, self.at) + 1
        before = self.text[begin : self.at]
        alone = not before.strip() and (begin > 0 or self.whole_line)
        return before + self.text[self.at] if alone else None

    def value(self) -> Any:
        """The value at `at`, which is left behind; `at` stays where it is no value.

        Raises:
            ValueError, RecursionError: as `json_text.bad` takes them.
        """
        while True:
            cut = not self.ended and len(self.text) - self.at <= MAX_LINE
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as e:
                unfinished = e.msg.startswith("Unterminated string") or e.pos > len(self.text) - NEAR_END
                if unfinished and cut:
                    self.more(max(CHUNK, len(self.text) - self.at))
                    continue
                if unfinished and not self.ended:
                    raise Bad(f"a row {TOO_LONG}", "split or drop it") from None
                line = self.line + self.text.count("\n", self.at, e.pos)
                what = f"invalid JSON: {e.msg} at line {line}, column {e.colno}"
                raise Bad(what, "every row must be one JSON object") from None
            if end == len(self.text) and cut and self.text[end - 1] not in '"}':  # a number may go on
                self.more()
                continue
            raw = self.text[self.at : end]
            if len(raw) > MAX_LINE:
                raise Bad(f"a row {TOO_LONG}", "split or drop it")
            if invalid := INVALID.search(raw):
                line = self.line + raw.count("\n", 0, invalid.start())
                raise Bad(f"invalid UTF-8 in line {line}", "save the file as UTF-8")
            flat(value, raw)
            self.advance(end)
            return value

    def resume(self, start: str) -> None:
        """Go to the next line that begins with `start`, or to the end."""
        wanted = "\n" + start
        while (found := self.text.find(wanted, self.at)) < 0:
            self.advance(max(self.at, len(self.text) - len(wanted)))
            if not self.more():
                self.advance(len(self.text))
                return
        self.advance(found + 1)
