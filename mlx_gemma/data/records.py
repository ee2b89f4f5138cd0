"""Files decoded into records: JSON Lines and JSON as a stream, plain or compressed, Parquet by batches.

A record that cannot be decoded comes out as a `Bad`, so that the rows after it are still read. The decoding itself
is in decoding/.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from mlx_gemma.data.decoding.json_records import json_records
from mlx_gemma.data.decoding.json_text import MAX_LINE, Bad
from mlx_gemma.data.decoding.parquet_records import parquet_records
from mlx_gemma.data.visible import one_line
from mlx_gemma.errors import DataError

__all__ = ["MAX_LINE", "Bad", "EvalItem", "conversation_of", "read_eval_items", "read_records", "text_of"]

BUFFER = 2**18  # bytes
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def read_records(file: Path) -> Iterator[tuple[str, Any]]:
    """(place, record or Bad) of every row: a line number, or `row N` of Parquet; "" where the whole file is meant.

    A file that ends in an error, or holds no rows, ends in a Bad that says so. Memory: some lines, or 1,024 rows.
    """
    found = False
    for place, record in parquet_records(file) if file.suffix == ".parquet" else _json(file):
        found = True
        yield place, record
    if not found:
        yield "", Bad("holds no rows", "point at a file with at least one row")


def _json(file: Path) -> Iterator[tuple[str, Any]]:
    last = ""
    try:
        with io.BufferedReader(io.FileIO(file), BUFFER) as plain:
            for last, record in json_records(_unpacked(plain)):
                yield last, record
    except OSError as e:
        what = f"cannot be read: {e.strerror or one_line(e)}"
        yield "", Bad(f"{what}, behind line {last}" if last else what, "check the path, or write the file again")


def _unpacked(plain: io.BufferedReader[Any]) -> io.BufferedReader[Any]:
    """The stream, decompressed where its first bytes say that it is compressed, whatever its name."""
    kind = next((k for magic, k in COMPRESSED.items() if plain.peek(4).startswith(magic)), None)
    if kind is None:
        return plain
    import pyarrow as pa

    return io.BufferedReader(cast(io.RawIOBase, pa.CompressedInputStream(pa.PythonFile(plain), kind)), BUFFER)


class EvalItem(NamedTuple):
    """A line of an eval file; `id` is its line number where it has none, `record` the whole of it.

    `prompt` is the user's last message where the line holds a conversation.
    """

    id: str
    prompt: str
    where: str
    record: dict[str, Any]


def read_eval_items(file: Path) -> Iterator[EvalItem]:
    """The items of an eval file: JSON Lines, each with a `prompt` or `messages`; read as far as they are asked for.

    A suite's header (evaluate/suite.py), the first line, is left out.

    Raises:
        DataError: no such file, no items, or a line without a prompt (file and line).
    """
    found = False
    for place, record in _json(file):
        where = f"{file}:{place}" if place else str(file)
        try:
            if isinstance(record, Bad):
                raise record
            if not isinstance(record, dict):
                raise Bad("not an eval item", 'every line must be {"id": ..., "prompt": ...}')
            if place == "1" and "suite" in record and "prompt" not in record:
                continue
            found = True
            yield EvalItem(str(record.get("id", place)), conversation_of(record)[-1]["content"], where, record)
        except Bad as e:
            raise DataError(e.what, where=where, fix=e.fix) from e
    if not found:
        raise DataError("holds no items", where=file, fix='give a JSON Lines file with a "prompt" in every line')


def conversation_of(record: dict[str, Any]) -> tuple[dict[str, str], ...]:
    """What an eval item asks: its `prompt` as one message, or its `messages`, of which the last is the user's.

    Raises:
        Bad: neither, both, or messages of another shape.
    """
    if "messages" not in record or "prompt" in record:
        if "prompt" not in record or "messages" in record:
            raise Bad("not an eval item", 'every line must be {"id": ..., "prompt": ...}, or have "messages" instead')
        return ({"role": "user", "content": text_of(record, "prompt")},)
    messages = record["messages"]
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise Bad("'messages' must be a list of messages", 'a message is {"role": ..., "content": ...}')
    if any(m.get("role") not in ("user", "assistant") for m in messages) or messages[-1]["role"] != "user":
        raise Bad("'messages' must be of user and assistant, the last the user's", 'a system prompt goes to "system"')
    if missing := [i for i, m in enumerate(messages) if "content" not in m]:
        raise Bad(f"message {missing[0] + 1} has no 'content'", "write it, or leave the message out")
    return tuple({"role": m["role"], "content": text_of(m, "content")} for m in messages)


def text_of(record: dict[str, Any], key: str, place: str = "") -> str:
    """The text under a key; `Bad` if it is none, or says nothing, or cannot be written down."""
    text = record[key]
    if not isinstance(text, str):
        raise Bad(f"{place}{key!r} must be text, not {type(text).__name__}", "write it as a string")
    if not text.strip():
        raise Bad(f"{place}{key!r} is empty", "fill it in or drop the row")
    if len(text) > MAX_LINE:
        raise Bad(f"{place}{key!r} is longer than {MAX_LINE >> 20} Mi characters", "split or drop the row")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Bad(f"{place}{key!r} holds half of a surrogate pair", "write the character whole") from None
    return text
