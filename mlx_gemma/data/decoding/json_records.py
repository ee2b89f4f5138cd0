"""JSON decoded into records, as a stream that no text breaks: what is wrong comes out as a `Bad`, with its line.

Two layouts, told apart by the first bytes. JSON Lines has one row a line. Values (json_values.py) are whole JSON texts
over any number of lines: one array of rows, as many sets on the hub have it, or objects one after another.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from mlx_gemma.data.decoding.json_text import BOM, MAX_LINE, TOO_LONG, Bad, bad, decoded
from mlx_gemma.data.decoding.json_values import CHUNK, json_values

VALUES = re.compile(rb"\s*(\[\s*([\r\n{]|$)|\{[ \t]*\r?\n)")
FOREIGN = {b"PAR1": "Parquet", b"PK\3\4": "a zip archive", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"ARROW1": "Arrow IPC"}


def json_records(stream: io.BufferedReader[Any]) -> Iterator[tuple[str, Any]]:
    """(line number, record or Bad) of every row; the number is "" where the whole file is meant.

    Memory: a few times MAX_LINE, whatever the file holds.

    Raises:
        OSError: as the file system or the decompression has it.
    """
    head = stream.peek(CHUNK).removeprefix(BOM)
    if refusal := _not_utf8(head):
        yield "", refusal
    elif VALUES.match(head):
        yield from json_values(stream)
    else:
        yield from _lines(stream)


def _not_utf8(head: bytes) -> Bad | None:
    for magic, name in FOREIGN.items():
        if head.startswith(magic):
            return Bad(f"is {name}, not JSON Lines", "unpack it, or give it the suffix of what it is")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{", b"[\0", b"\0["):
        return Bad("is UTF-16, not UTF-8", "convert it: iconv -f UTF-16 -t UTF-8")
    return None


def _lines(stream: io.BufferedReader[Any]) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            if not line.endswith(b"\n"):
                _skip_line(stream)
            yield str(number), Bad(f"a line {TOO_LONG}", "one row a line: split or drop it")
        elif line.strip():
            yield str(number), _decoded(line)


def _skip_line(stream: io.BufferedReader[Any]) -> None:
    while data := stream.peek(1):  # not readline, which takes ten times as long
        end = data.find(b"\n") + 1
        stream.read(end or len(data))
        if end:
            return


def _decoded(line: bytes) -> Any:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as e:
        return Bad(f"invalid UTF-8 at byte {e.start + 1}", "save the file as UTF-8")
    try:
        return decoded(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as e:
        if text.strip() in ("[", "{"):
            return Bad("JSON over several lines, not JSON Lines", "write one row a line")
        return bad(e)
