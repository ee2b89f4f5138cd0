"""A corpus that is kept: made once from its data, and made anew where that is no longer what it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlx_gemma import run
from mlx_gemma.blame.corpus import Corpus, read, write
from mlx_gemma.gemma4.template import Example

LAYOUT = 1  # of the files; another number makes them anew
META = "corpus.json"


def cached(
    folder: Path,
    made_from: dict[str, Any],
    files: list[tuple[Path, str]],
    rows: Callable[[], Iterable[tuple[Example, str]]],
) -> Corpus:
    """The corpus in `folder`; made anew, whole or not at all, where it was made from something else.

    Args:
        folder: its own, what is in it is replaced.
        made_from: JSON of what decides its contents beside the files.
        files: the data, with the names it is shown under; a file whose size and time of change are as they were is
            taken for the same, otherwise its sha256 decides (1 GB takes about a second).
        rows: reads and renders them.

    Raises:
        UserError: whatever `rows` raises, no rows, or the disk refuses.
    """
    made_from = {"layout": LAYOUT} | made_from
    known = _meta(folder)
    if known.get("made_from") == made_from and _same(known.get("files"), files):
        return read(folder)
    if folder.is_dir():
        shutil.rmtree(folder)
    with run.whole_folder(folder) as part:
        stamps = [_stamp(path, shown) for path, shown in files]  # before the reading: a change under way is seen later
        write(part, rows())
        run.write_json(part / META, {"made_from": made_from, "files": stamps})
    return read(folder)


def _meta(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / META).read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError):
        return {}


def _stamp(path: Path, shown: str) -> dict[str, Any]:
    stat = path.stat()
    return {"name": shown, "bytes": stat.st_size, "changed": stat.st_mtime_ns, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same(stamps: Any, files: list[tuple[Path, str]]) -> bool:
    if not isinstance(stamps, list) or [s["name"] for s in stamps] != [shown for _, shown in files]:
        return False
    for stamp, (path, _) in zip(stamps, files, strict=True):
        stat = path.stat()
        if stat.st_size != stamp["bytes"]:
            return False
        if stat.st_mtime_ns != stamp["changed"] and _sha256(path) != stamp["sha256"]:
            return False
    return True
