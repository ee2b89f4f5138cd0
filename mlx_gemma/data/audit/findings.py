"""What was found, row by row, kept as columns: some hundred bytes a reason; Python's objects take five times that.

The columns are Arrow's, and can be written to a file and mapped again: that is what the cache keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from mlx_gemma.data.reason import Reason

BATCH = 4096  # reasons


class Found(NamedTuple):
    """A row in which something was found: its number among the rows read, from 0, and its `where`."""

    row: int
    where: str
    reasons: tuple[Reason, ...]


class Findings:
    """Everything that was found, in the order in which it was added, which is that of the rows."""

    def __init__(self, path: Path | None = None) -> None:
        """Empty, or what `write` has written."""
        self._batches: list[Any] = []
        self._waiting: list[tuple[int | bytes | None, ...]] = []
        if path is not None:
            import pyarrow as pa

            file = pa.ipc.open_file(pa.memory_map(str(path)))
            self._batches = [file.get_batch(i) for i in range(file.num_record_batches)]

    @classmethod
    def merged(cls, *parts: Iterable[Found]) -> Findings:
        """Of several passes, each in the order of the rows: one, in that order."""
        findings = cls()
        for _, same in groupby(merge(*parts, key=attrgetter("row")), attrgetter("row")):
            first, *others = same
            findings.add(first._replace(reasons=sum((f.reasons for f in others), first.reasons)))
        return findings

    def add(self, found: Found) -> None:
        where = to_bytes(found.where)
        for r in found.reasons:
            of = None if r.of is None else to_bytes(r.of)
            self._waiting.append((found.row, where, *map(to_bytes, (r.check, r.message, r.name)), of))
        if len(self._waiting) >= BATCH:
            self._flush()

    def __iter__(self) -> Iterator[Found]:
        self._flush()
        lines = (line for batch in self._batches for line in zip(*(c.to_pylist() for c in batch.columns), strict=True))
        for (row, where), same in groupby(lines, lambda line: line[:2]):
            yield Found(row, to_text(where), tuple(_reason(*line[2:]) for line in same))

    def write(self, path: Path) -> None:
        """To a file that `Findings(path)` maps."""
        import pyarrow as pa

        self._flush()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _schema()) as writer:
            for batch in self._batches:
                writer.write_batch(batch)

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._batches.append(pa.record_batch(list(zip(*self._waiting, strict=True)), schema=_schema()))
            self._waiting = []


def _reason(check: bytes, message: bytes, name: bytes, of: bytes | None) -> Reason:
    return Reason(to_text(check), to_text(message), to_text(name), None if of is None else to_text(of))


def _schema() -> Any:
    import pyarrow as pa

    texts = ("where", "check", "message", "name", "of")
    return pa.schema([("row", pa.int64()), *((name, pa.binary()) for name in texts)])


def to_bytes(text: str) -> bytes:
    """Text as UTF-8, also where it is none: a file's name may hold half of a surrogate pair."""
    return text.encode("utf8", "surrogatepass")


def to_text(data: bytes) -> str:
    return data.decode("utf8", "surrogatepass")
