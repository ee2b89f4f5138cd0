"""Rows that wait for the audit: a list where they are few, a file on the disk where they are many.

The file is Arrow IPC, mapped into memory: some hundred rows a batch, each row its place, its messages as JSON, its
other keys pickled (Parquet has values that JSON has not), or what is wrong with it. So memory does not grow with the
texts, worker processes read their part themselves, and any row is found again in microseconds.
"""

from __future__ import annotations

import json
import pickle
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

from mlx_gemma.data.audit.findings import to_bytes, to_text
from mlx_gemma.data.formats import BadRow, Row
from mlx_gemma.run import disk_errors

# Checking so much takes about two seconds, and so does starting worker processes.
FEW = 1 << 19  # characters
CHUNK_ROWS = 256  # what is checked at once
CHUNK_SIZE = 1 << 20  # characters

Rows = Sequence[Row | BadRow]
Read = Callable[[int], None]
"""Told the number of rows that were read so far."""


def collect(rows: Iterable[Row | BadRow], read: Read, *, stop: bool) -> Rows:
    """All rows: in a list, or beyond FEW characters in a `Spool`. About 30 us a row.

    Args:
        read: told of the progress.
        stop: at the first bad row.

    Raises:
        DataError: that row.
        UserError: the disk is full; TMPDIR says which one.
    """
    few, size, coming = list[Row | BadRow](), 0, _checked(rows, read, stop)
    for row in coming:
        few.append(row)
        size += size_of(row)
        if size > FEW:
            return _spooled(chain(few, coming))
    return few


def _checked(rows: Iterable[Row | BadRow], read: Read, stop: bool) -> Iterator[Row | BadRow]:
    for number, row in enumerate(rows, 1):
        if stop and isinstance(row, BadRow):
            raise row.error()
        if number % CHUNK_ROWS == 0:
            read(number)
        yield row


def size_of(row: Row | BadRow) -> int:
    """Characters of a row's messages."""
    return sum(len(m["content"]) for m in row.messages) if isinstance(row, Row) else 0


class Spool(Sequence[Row | BadRow]):
    """The rows of a spool file; equal to those written."""

    def __init__(self, path: Path, folder: TemporaryDirectory[str] | None = None) -> None:
        import pyarrow as pa

        self.path, self._folder = path, folder  # which is removed with this, at the latest when the program ends
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [self._file.get_batch(i) for i in range(self._file.num_record_batches)]  # maps: nothing is read
        self.starts = [0]
        for batch in self._batches:
            self.starts.append(self.starts[-1] + batch.num_rows)

    def __len__(self) -> int:
        return self.starts[-1]

    @overload
    def __getitem__(self, index: int) -> Row | BadRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row | BadRow]: ...
    def __getitem__(self, index: int | slice) -> Row | BadRow | list[Row | BadRow]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = bisect_right(self.starts, index) - 1
        return _decoded(*(column[index - self.starts[batch]].as_py() for column in self._batches[batch].columns))

    def __iter__(self) -> Iterator[Row | BadRow]:
        for number in range(self.chunks):
            yield from self.chunk(number)

    def unlink(self) -> None:
        """Remove the file's name, for when no other process needs it: then not even a killed program leaves a file."""
        if self._folder is not None:
            self._folder.cleanup()  # what is mapped stays readable

    @property
    def chunks(self) -> int:
        return len(self._batches)

    def chunk(self, number: int) -> list[Row | BadRow]:
        """The rows of a batch."""
        return [_decoded(*r) for r in zip(*(c.to_pylist() for c in self._batches[number].columns), strict=True)]


def _spooled(rows: Iterable[Row | BadRow]) -> Spool:
    import pyarrow as pa

    schema = pa.schema([(name, pa.binary()) for name in ("where", "messages", "extra", "shape", "what", "fix")])
    folder = TemporaryDirectory(prefix="mlx-gemma-audit-")
    path = Path(folder.name, "rows.arrow")
    with disk_errors(path), pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        records, size = list[tuple[Any, ...]](), 0
        for row in rows:
            records.append(_encoded(row))
            size += size_of(row)
            if len(records) == CHUNK_ROWS or size >= CHUNK_SIZE:
                writer.write_batch(pa.record_batch(list(zip(*records, strict=True)), schema=schema))
                records, size = [], 0
        if records:
            writer.write_batch(pa.record_batch(list(zip(*records, strict=True)), schema=schema))
    return Spool(path, folder)


def _encoded(row: Row | BadRow) -> tuple[bytes | None, ...]:
    if isinstance(row, BadRow):
        return to_bytes(row.where), None, None, None, to_bytes(row.what), to_bytes(row.fix)
    messages, extra = json.dumps(row.messages).encode(), pickle.dumps(row.extra) if row.extra else None
    return to_bytes(row.where), messages, extra, to_bytes(row.shape), None, None


def _decoded(
    where: bytes, messages: bytes | None, extra: bytes | None, shape: bytes, what: bytes, fix: bytes
) -> Row | BadRow:
    if messages is None:
        return BadRow(to_text(where), to_text(what), to_text(fix))
    return Row(json.loads(messages), to_text(where), pickle.loads(extra) if extra else {}, to_text(shape))
