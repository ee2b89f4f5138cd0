"""Files decoded into records: JSON Lines as a stream, Parquet by batches.

A record that cannot be decoded comes out as a `Bad`, so that the rows after it are still read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from mlx_gemma.errors import DataError

MAX_LINE = 16 * 2**20  # bytes; a longer line is no instruction row, and must not fill the memory


class Bad(ValueError):
    """Why a row cannot be used, and what to do about it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def read_records(file: Path) -> Iterator[tuple[str, Any]]:
    """(place, record) of every row; the place is a line number or `row N`. Memory: one line, or 1,024 rows.

    Raises:
        DataError: a Parquet file that cannot be opened.
        OSError: as the file system has it.
    """
    return _parquet(file) if file.suffix == ".parquet" else _json_lines(file)


class EvalItem(NamedTuple):
    """A line of an eval file; `id` is its line number where it has none, `record` the whole of it."""

    id: str
    prompt: str
    where: str
    record: dict[str, Any]


def read_eval_items(file: Path) -> Iterator[EvalItem]:
    """The items of an eval file: JSON Lines, each with a `prompt`; read as far as they are asked for.

    Raises:
        DataError: no such file, no items, or a line without a prompt (file and line).
    """
    found = False
    try:
        for place, record in _json_lines(file):
            found, where = True, f"{file}:{place}"
            try:
                if isinstance(record, Bad):
                    raise record
                if not isinstance(record, dict) or "prompt" not in record:
                    raise Bad("not an eval item", 'every line must be {"id": ..., "prompt": ...}')
                yield EvalItem(str(record.get("id", place)), text_of(record, "prompt"), where, record)
            except Bad as e:
                raise DataError(e.what, where=where, fix=e.fix) from e
    except OSError as e:
        raise DataError(f"cannot be read: {e.strerror or e}", where=file, fix="check the path of the eval file") from e
    if not found:
        raise DataError("holds no items", where=file, fix='give a JSON Lines file with a "prompt" in every line')


def text_of(record: dict[str, Any], key: str, place: str = "") -> str:
    """The text under a key; `Bad` if it is none, or says nothing, or cannot be written down."""
    text = record[key]
    if not isinstance(text, str):
        raise Bad(f"{place}{key!r} must be text, not {type(text).__name__}", "write it as a string")
    if not text.strip():
        raise Bad(f"{place}{key!r} is empty", "fill it in or drop the row")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Bad(f"{place}{key!r} holds half of a surrogate pair", "write the character whole") from None
    return text


def _json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                while len(line) > MAX_LINE and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE + 1)
                yield str(number), Bad(f"a line longer than {MAX_LINE >> 20} MiB", "one row a line: split or drop it")
            elif line.strip():
                yield str(number), _decoded(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _decoded(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as e:
        return Bad(f"invalid UTF-8 at byte {e.start + 1}", "save the file as UTF-8")
    except RecursionError:
        return Bad("nested too deeply", "a row is a flat object of a few keys: drop the line")
    except json.JSONDecodeError as e:
        if line.strip() in (b"[", b"{"):
            return Bad("JSON over several lines, not JSON Lines", "write one row a line")
        return Bad(f"invalid JSON: {e.msg} at column {e.colno}", "every line must be one JSON object")
    except Bad as e:
        return e
    except ValueError as e:
        return Bad(f"invalid JSON: {e}", "every line must be one JSON object")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1)
        raise Bad(f"key {twice!r} occurs twice", "keep one of the two")
    return record


def _no_constant(name: str) -> NoReturn:
    raise Bad(f"{name} is not JSON", "write null or a number")


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                number += 1
                yield f"row {number}", {k: v for k, v in record.items() if v is not None}
    except pa.ArrowException as e:
        raise DataError(f"not a readable Parquet file: {e}", where=file, fix="download or write it again") from e
