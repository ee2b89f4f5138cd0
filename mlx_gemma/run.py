"""The run folder: what a training leaves behind, and the manifest that ties it together.

    adapters.safetensors, adapter_config.json   the adapter, as mlx-lm loads it
    recipe.yaml                                 every resolved value with its source
    metrics.jsonl, loss.png                     the loss, step by step
    audit.json                                  what was in the data and what was rejected
    snapshots/                                  adapters on the way, for blame (see training/snapshots.py)
    checkpoints/                                while it trains: what it can go on from
    manifest.json                               digests of data, base, template and recipe; written last

A folder without a manifest is an unfinished run.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlx_gemma.errors import UserError

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
HEADER = "# Written by mlx-gemma"  # the first line of a run's recipe, by which the folder is known as ours
CHECKPOINTS, SNAPSHOTS = "checkpoints", "snapshots"
BEST = "best.safetensors"  # the adapter of the lowest validation loss so far
PART = ".part."  # begins the name of what is being written; a run that was killed may leave one
REMAINS = ("adapters.safetensors", "adapter_config.json", "metrics.jsonl", "loss.png", "audit.json", BEST)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path to write to. Where the block ends well it is synced and takes `path`'s place, else removed."""
    part = path.with_name(f"{PART}{path.name}")
    try:
        yield part
        sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf8")


def write_json(path: Path, value: Any) -> None:
    """Write a file of standard JSON (NaN is an error) whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str, allow_nan=False) + "\n")


def checkpoints(folder: Path) -> list[Path]:
    """A run folder's checkpoints, oldest first; what was being written when a run died is none."""
    return sorted(
        (p for p in (folder / CHECKPOINTS).glob("*") if p.is_dir() and p.name.isdigit()), key=lambda p: int(p.name)
    )


def check(folder: Path, *, resume: bool = False) -> None:
    """Whether a run may be written to `folder`: a new one, an empty one, or the remains of an unfinished run.

    Raises:
        UserError: it holds a finished run or something else; or checkpoints, and it is not to go on from them.
    """
    with disk_errors(folder):
        if (folder / MANIFEST).exists():
            fix = "choose another output (--set output=…) or remove it"
            raise UserError("holds a finished run", where=folder, fix=fix)
        held = [p for p in folder.iterdir() if not p.name.startswith(PART)] if folder.is_dir() else []
        foreign = folder.is_file() or (held and not _ours(folder / RECIPE))
        if foreign:
            raise UserError("exists and is no run folder", where=folder, fix="choose another output (--set output=…)")
        if (found := checkpoints(folder)) and not resume:
            fix = "add --resume to go on with it, or remove the folder"
            raise UserError(f"holds an unfinished run, saved at update {int(found[-1].name)}", where=folder, fix=fix)


def _ours(recipe: Path) -> bool:
    return recipe.is_file() and recipe.read_text(encoding="utf8", errors="replace").startswith(HEADER)


def start(folder: Path, recipe: str) -> Path:
    """Make the run folder with its recipe in it, clearing what an unfinished run left.

    Raises:
        UserError: see `check`; or it cannot be written.
    """
    check(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (CHECKPOINTS, SNAPSHOTS):
            shutil.rmtree(folder / name, ignore_errors=True)
        for path in (*(folder / name for name in REMAINS), *folder.glob(f"{PART}*")):
            path.unlink(missing_ok=True)
        write_text(folder / RECIPE, f"{HEADER}: every value with its source.\n{recipe}")
    return folder


def forget(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for path in (folder / BEST, *folder.glob(f"{PART}*")):
        path.unlink(missing_ok=True)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn whatever the disk refuses into one line."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError("the disk is full", where=folder, fix="free space, or choose another output") from e
        raise UserError(f"cannot be written: {e.strerror or e}", where=folder, fix="choose another output") from e


def check_new(out: Path) -> None:
    """Whether `whole_folder` may make `out`; to be asked before the work that comes first.

    Raises:
        UserError: it exists, or a command that was killed has left its part.
    """
    with disk_errors(out):
        for path, what in ((out, "exists"), (_part(out), "is left over from a command that was killed")):
            if path.exists() or path.is_symlink():
                raise UserError(what, where=path, fix="remove it or choose another output (--out)")


@contextmanager
def whole_folder(out: Path, *, file: bool = False) -> Iterator[Path]:
    """OUT.part, a new folder to fill. Where the block ends well it takes `out`'s name.

    Else it is removed, and the parents that were made for it: Ctrl-C too.

    Args:
        file: `out` is a file, the only one in the folder.

    Raises:
        UserError: see `check_new`; or the disk refuses, which any OSError in the block is taken for.
    """
    check_new(out)
    part, made = _part(out), list[Path]()
    try:
        with disk_errors(out):
            made += [p for p in part.parents if not p.exists()]
            part.mkdir(parents=True)
            yield part
            if file:
                next(part.iterdir()).rename(out)
                part.rmdir()
            else:
                part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # somebody else has put something into it
                parent.rmdir()
        raise


def _part(out: Path) -> Path:
    return out.with_name(out.name + ".part")


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
