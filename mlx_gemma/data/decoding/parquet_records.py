"""Parquet decoded into records: what cannot be decoded comes out as a `Bad`, and the rest is still read.

A value that Python has no type for (a nanosecond timestamp) becomes its text. A row with a value that cannot be decoded
at all is bad; so is what a damaged page takes with it: the rest of its row group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_gemma.data.decoding.json_text import Bad
from mlx_gemma.data.visible import one_line

BATCH_ROWS = 1024
BATCH_BYTES = 32 * 2**20
AGAIN = "download or write the file again"


def parquet_records(file: Path) -> Iterator[tuple[str, Any]]:
    """(`row N`, record or Bad) of every row; the place is "" where the whole file is meant. Null values are left out.

    Memory: a batch of BATCH_ROWS rows, fewer where they are long; or one of the file's pages, where that is more.
    """
    import pyarrow.parquet as pq

    try:
        source = pq.ParquetFile(file, page_checksum_verification=True)
        names = source.schema_arrow.names
        groups = [source.metadata.row_group(g) for g in range(source.num_row_groups)]
    except Exception as e:  # a damaged footer raises a dozen kinds
        yield "", Bad(f"not a readable Parquet file: {one_line(e)}", AGAIN)
        return
    if twice := {name for name in names if names.count(name) > 1}:
        yield "", Bad(f"column {min(twice)!r} occurs twice", "rename one of the two")
        return
    number = 0
    for g, group in enumerate(groups):
        end = number + group.num_rows
        long = max(1, group.total_byte_size // max(1, group.num_rows))
        try:
            for batch in source.iter_batches(min(BATCH_ROWS, max(1, BATCH_BYTES // long)), row_groups=[g]):
                for record in _records(batch):
                    number += 1
                    yield f"row {number}", record
        except Exception as e:  # of Arrow, of the file system, or of memory that a damaged length asks for
            yield f"row {number + 1}", Bad(f"not readable as far as row {end}: {one_line(e)}", AGAIN)
        number = end


def _records(batch: Any) -> Iterator[Any]:
    columns = {name: _values(column, name) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    for i in range(batch.num_rows):
        record = {name: values[i] for name, values in columns.items() if values[i] is not None}
        yield next((v for v in record.values() if isinstance(v, Bad)), record)


def _values(column: Any, name: str) -> list[Any]:
    try:
        return list(column.to_pylist())
    except Exception:  # one value is enough to fail the whole column
        return [_value(value, name) for value in column]


def _value(value: Any, name: str) -> Any:
    import pyarrow as pa

    try:
        return value.as_py()
    except UnicodeDecodeError as e:
        return Bad(f"column {name!r}: invalid UTF-8 at byte {e.start + 1}", "save the text as UTF-8")
    except Exception as e:
        try:
            return value.cast(pa.string()).as_py()
        except Exception:
            return Bad(f"column {name!r} cannot be read: {one_line(e)}", "drop the column, or write it as text")
