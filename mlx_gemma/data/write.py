"""Files that appear whole: written to a temporary name beside the target, synced, renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlx_gemma.errors import DataError


def write_text(path: Path, lines: Iterable[str]) -> None:
    """Write lines (without their ends) as UTF-8; the file is complete or does not appear.

    Raises:
        DataError: the folder cannot be written to, or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", newline="\n", delete=False) as stream:
            temporary = Path(stream.name)
            stream.writelines(line + "\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as e:
        raise DataError(f"cannot be written: {e.strerror}", where=path, fix="make room, or give another folder") from e
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records as compact JSON Lines, keys in the order given."""
    write_text(path, (json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in records))
