"""Checkpoints: everything that the next update depends on, written whole, checked when read.

    checkpoints/000100/adapter.safetensors     the trained tensors
                       optimizer.safetensors   the optimiser's state
                       best.safetensors        the best adapter up to then, if the run keeps it
                       state.json              numbers, digests of all files, and what the run was made from

The order of rows, the learning rate and dropout are functions of seed and step, so there is no random state to keep. A
checkpoint is written beside its place, synced and renamed; whatever dies in between leaves the one before. A run that
goes on from one ends with the same bits as one that was never stopped, on the same machine.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from mlx_gemma import run
from mlx_gemma.digest import digest_files, digest_json
from mlx_gemma.errors import UserError

ADAPTER, OPTIMIZER, STATE = "adapter.safetensors", "optimizer.safetensors", "state.json"


def save(
    folder: Path, step: int, parameters: Any, optimizer: Any, state: dict[str, Any], keep: int, best: Path | None = None
) -> None:
    """Write the checkpoint of update `step` into a run folder, and remove all but the newest `keep`.

    Args:
        best: the best adapter's file. It is replaced by better ones, never written to, so that a link to it will do.

    Raises:
        OSError, RuntimeError (mlx's): it cannot be written; the checkpoints before are untouched.
    """
    place = folder / run.CHECKPOINTS / f"{step:06d}"
    part = place.with_name(f"{run.PART}{place.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for name, tree in ((ADAPTER, parameters), (OPTIMIZER, optimizer)):
            mx.save_safetensors(str(part / name), dict(tree_flatten(tree)))
            run.sync(part / name)
        if best:
            _link(best, part / run.BEST)
        digests = {p.name: digest_files([p]) for p in sorted(part.iterdir())}
        state = state | {"step": step, "digests": digests}
        run.write_json(part / STATE, state | {"digest": digest_json(state)})
        run.sync(part)
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
        run.sync(place.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    for old in run.checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
        run.sync(target)


def load(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Trained parameters, optimiser state (both trees) and the numbers beside them.

    Raises:
        UserError: a file is missing, unreadable, or not what was written.
    """
    try:
        state = dict(json.loads((path / STATE).read_text(encoding="utf8")))
        if state.pop("digest") != digest_json(state):
            raise ValueError(f"{STATE} has changed since it was written")
        for name, digest in state["digests"].items():
            if digest_files([path / name]) != digest:
                raise ValueError(f"{name} has changed since it was written")
        trees = [_tree(path / name) for name in (ADAPTER, OPTIMIZER)]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as e:
        older = [p.name for p in run.checkpoints(path.parent.parent) if p.name < path.name]
        then = f"to go on from {older[-1]}" if older else "and start again"
        raise UserError(f"unreadable checkpoint: {e}", where=path, fix=f"remove this folder {then}") from e
    return trees[0], trees[1], state


def _tree(path: Path) -> Any:
    arrays: dict[str, mx.array] = mx.load(str(path))  # type: ignore[assignment]
    return tree_unflatten(list(arrays.items()))


def refuse_change(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """A run goes on only with what it began with.

    Args:
        then, now: what the run is made from: `recipe` (every key), `data`, `base`, `template`.

    Raises:
        UserError: naming the first key that is another.
    """
    for part in now:
        before, after = then.get(part), now[part]
        if before == after:
            continue
        fix = "give what the run began with, or another output to train anew"
        if not isinstance(before, dict) or not isinstance(after, dict):
            raise UserError(f"the {part} has changed since this checkpoint", where=path, fix=fix)
        key = next(k for k in [*after, *before] if before.get(k) != after.get(k))
        if part == "recipe":
            what = f"{key} was {before.get(key)}, and is {after.get(key)} now"
        else:
            what = f"the {part} ({key}) has changed since this checkpoint"
        raise UserError(what, where=path, fix=fix)
