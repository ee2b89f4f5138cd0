"""The run folder: what a training leaves behind, and the manifest that ties it together.

    adapters.safetensors, adapter_config.json   the adapter, as mlx-lm loads it
    recipe.yaml                                 every resolved value with its source
    metrics.jsonl, loss.png                     the loss, step by step
    audit.json                                  what was in the data and what was rejected
    manifest.json                               digests of data, base, template and recipe; written last

A folder without a manifest is an unfinished run.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx_gemma.errors import UserError

MANIFEST = "manifest.json"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary name, synced, renamed."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def start(folder: Path) -> Path:
    """Make the run folder. Remains of an unfinished run are overwritten; a finished one is not.

    Raises:
        UserError: it holds a finished run or something else, or cannot be made.
    """
    if (folder / MANIFEST).exists():
        raise UserError("holds a finished run", where=folder, fix="choose another output (--set output=…) or remove it")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / "metrics.jsonl").exists()):
        raise UserError("exists and is no run folder", where=folder, fix="choose another output (--set output=…)")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one line."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError("the disk is full", where=folder, fix="free space, or choose another output") from e
        if e.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.ENOENT):
            raise UserError(f"cannot be written: {e.strerror}", where=folder, fix="choose another output") from e
        raise


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        return dict(json.loads(path.read_text(encoding="utf8")))
    except FileNotFoundError:
        raise UserError("no finished run here", where=folder, fix="give a folder that mlx-gemma lora wrote") from None
    except (OSError, ValueError) as e:
        raise UserError(f"unreadable manifest: {e}", where=path, fix="train again") from e
