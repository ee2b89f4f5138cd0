"""Rows written as JSON Lines; the file appears whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mlx_gemma.errors import UserError
from mlx_gemma.run import disk_errors, whole


def json_line(record: dict[str, Any]) -> str:
    """A record as one compact line, keys in the order given. What JSON has not: NaN is null, a date or bytes text."""
    line = json.dumps(_finite(record), ensure_ascii=False, separators=(",", ":"), default=str)
    return line.encode("utf8", "backslashreplace").decode("utf8")  # half a surrogate pair as its \ud800, as JSON has it


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file to write to, its folder made; it takes its name where the block ends well, else it is removed.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    if any(folder.is_file() for folder in path.parents):
        raise UserError("its folder is a file", where=path, fix="give another name")
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Half a surrogate pair, in a file's name for one, as JSON's escape for it.
        with whole(path) as part, part.open("w", encoding="utf8", errors="backslashreplace") as file:
            yield file


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records as UTF-8 JSON Lines. Memory: one record.

    Raises:
        UserError: see `whole_file`.
    """
    with whole_file(path) as file:
        file.writelines(json_line(record) + "\n" for record in records)
