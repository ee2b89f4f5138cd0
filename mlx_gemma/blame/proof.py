"""The proof of a blame: train again without the blamed rows, and without as many random ones, and ask again.

Recipe, seeds and base are those of the run, but for what it writes. Fewer rows make other batches and, where the recipe
counts epochs, fewer updates; a control has as many rows less, so that this is in both. Any change of the rows moves a
decision; several controls tell by how much.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import load
from mlx_gemma.recipe import read_recipe
from mlx_gemma.tracing.decide import joint
from mlx_gemma.training.loop import train
from mlx_gemma.training.prepare import Split, prepare
from mlx_gemma.training.record import Progress


@dataclass(frozen=True)
class Answers:
    """Probabilities of the token in question and of its rival."""

    token: float
    rival: float


@dataclass(frozen=True)
class Proof:
    """The decision after training on all rows, without the blamed ones, and without as many random ones, often."""

    removed: int
    original: Answers
    without_blamed: Answers
    without_random: tuple[Answers, ...]


def prove(
    folder: Path,
    context: Sequence[int],
    token: int,
    rival: int,
    blamed: Collection[int],
    *,
    controls: int = 1,
    report: Callable[[str, Progress], None] = lambda name, p: None,
) -> Proof:
    """Train without the blamed rows, and `controls` times without others, and ask every time.

    Args:
        folder: a finished run.
        context: token ids before the decision.
        token, rival: what came, and what could have.
        blamed: rows, as `influence` numbers them.
        controls: choices of random rows, none of them blamed; of the seeds 0, 1, ...
        report: called after every update of each training.

    Raises:
        UserError: no rows are blamed, or too few others are left; the data has changed; see `train` too.

    Cost: 1 + `controls` trainings like the run's. Nothing is left on the disk.
    """
    if not blamed:
        raise UserError("no row is blamed, so there is nothing to leave out", fix="ask for more rows (--remove)")

    def ask(of: Path) -> Answers:
        gemma = load(str(of))
        return Answers(*(joint(gemma, context, [one]) for one in (token, rival)))

    found = [ask(folder)]
    for seed in (None, *range(controls)):
        name = "without the blamed rows" if seed is None else "without random rows"
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "run"
            _train_without(folder, out, blamed, seed, lambda p, n=name: report(n, p))  # type: ignore[misc]
            found.append(ask(out))
    return Proof(len(blamed), found[0], found[1], tuple(found[2:]))


def _train_without(
    folder: Path, out: Path, blamed: Collection[int], seed: int | None, report: Callable[[Progress], None]
) -> None:
    """The run again without these rows, or without as many of the others, drawn from a seed."""
    resolved = read_recipe(folder / run.RECIPE, [f"output={out}", "report_to=none", "blame.snapshots=0"])
    ready = prepare(resolved.recipe)
    if ready.train.digest != run.read_manifest(folder)["data"]["train"]:
        raise UserError("the data has changed since the run was trained on it", where=folder, fix="train again")
    count = len(ready.train.examples)
    left = set(blamed)
    others = sorted(set(range(count)) - left)
    if len(others) <= len(left):
        what = f"{len(left)} of {count} rows are blamed, so no control can leave out as many others"
        raise UserError(what, where=folder, fix="blame fewer rows (--remove)")
    if seed is not None:
        left = set(np.random.default_rng(seed).choice(others, len(left), replace=False).tolist())
    train(resolved, replace(ready, train=_without(ready.train, left)), report)


def _without(split: Split, rows: Collection[int]) -> Split:
    kept = [i for i in range(len(split.examples)) if i not in rows]
    return replace(split, examples=[split.examples[i] for i in kept], where=[split.where[i] for i in kept])
