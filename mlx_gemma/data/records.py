"""Files decoded into records: JSON Lines as a stream, Parquet by batches.

A record that cannot be decoded comes out as a `Bad`, so that the rows after it are still read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

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
