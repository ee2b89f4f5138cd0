"""The diagnosis of runs: many synthetic curves of each kind, their boundaries, and curves that nano really drew."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_gemma.training.diagnose import Kind, diagnose

REAL = json.loads((Path(__file__).parent / "curves.json").read_text())
SEEDS = 60


@dataclass(frozen=True)
class Update:
    step: int
    loss: float
    valid_loss: float | None
    rate: float
    norm: float = 1.0
    skipped: str | None = None


Run = tuple[list[Update], float]  # and the validation loss before it
Shape = Callable[[np.random.Generator, np.ndarray], tuple[np.ndarray, np.ndarray]]  # of progress: training, validation


def still(g: np.random.Generator, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    floor = g.uniform(0.2, 0.5)
    loss = floor + (1 - floor) * np.exp(-g.uniform(1, 2.5) * u)
    return loss, loss * 1.03


def converging(g: np.random.Generator, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    floor = g.uniform(0.2, 0.7)
    loss = floor + (1 - floor) * np.exp(-g.uniform(12, 40) * u)
    return loss, loss * 1.05


def overfit(g: np.random.Generator, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = g.uniform(0.2, 0.6)
    loss = (0.3 + 0.7 * np.exp(-6 * u)) * np.exp(-g.uniform(0.5, 2) * np.maximum(0, u - low * 0.6))
    valid = 0.35 + 0.65 * np.exp(-3 * u / low)
    rise = 1 + g.uniform(0.15, 0.6) * (u - low) / (1 - low)
    return loss, np.where(u < low, valid, valid[np.searchsorted(u, low)] * rise)


def flat(g: np.random.Generator, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(len(u)), np.ones(len(u))


def jump(g: np.random.Generator, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    loss = 0.3 + 0.7 * np.exp(-10 * u)
    at = int(len(u) * g.uniform(0.2, 0.7))
    back = np.exp(-g.uniform(0, 2) * np.linspace(0, 1, len(u) - at))
    loss[at:] = np.maximum(loss[at:], loss[at] * g.uniform(4, 10) * back)
    return loss, loss


def noisy(g: np.random.Generator, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    floor = g.uniform(0.4, 0.8)
    valid = floor + (1 - floor) * np.exp(-20 * u)
    return valid * np.exp(-g.uniform(0.8, 1.6) * u), valid


def made(
    shape: Shape,
    seed: int,
    noise: tuple[float, float] = (0.05, 0.5),
    measures: tuple[int, int] = (4, 16),
    level: float | None = None,
) -> Run:
    """A run of this shape: any length, schedule, warm-up, level, noise of updates (with outliers) and of validation."""
    g = np.random.default_rng(seed)
    n, sigma = int(g.integers(60, 600)), g.uniform(*noise)
    warm, done = round(g.choice([0, 0.03, 0.1]) * n), np.linspace(0, 1, n)
    decay = [0.5 * (1 + np.cos(np.pi * done)), 1 - done, np.ones(n)][g.integers(3)]
    rate = np.where(np.arange(n) < warm, (np.arange(n) + 1) / max(1, warm), decay) * 2e-4
    loss, valid = shape(g, np.cumsum(rate) / rate.sum())
    start = level or float(np.exp(g.uniform(-1, 1)))
    outliers = np.where(g.random(n) < 0.03, 1 + g.exponential(1.0, n), 1)
    loss = start * loss * np.exp(sigma * g.standard_normal(n) - sigma**2 / 2) * outliers
    valid = start * valid * np.exp(g.uniform(0.002, 0.015) * g.standard_normal(n) * np.sqrt(rate / rate.max()))
    every = max(1, n // int(g.integers(*measures)))
    measured = [float(v) if (i + 1) % every == 0 or i + 1 == n else None for i, v in enumerate(valid)]
    updates = [Update(i + 1, float(loss[i]), measured[i], float(rate[i])) for i in range(n)]
    return updates, start


def kinds(shape: Shape, valid: bool = True, before: bool = True, **more: tuple[Any, Any]) -> Counter[Kind]:
    found: Counter[Kind] = Counter()
    for seed in range(SEEDS):
        run, start = made(shape, seed, **more)
        run = run if valid else [replace(p, valid_loss=None) for p in run]
        found[diagnose(run, start if before else None).kind] += 1
    return found


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (still, "still learning"),
        (converging, "converged"),
        (overfit, "overfitting"),
        (flat, "not learning"),
        (jump, "unstable"),
        (noisy, "noisy labels possible"),
    ],
)
def test_clear_curves_of_every_length_and_schedule(shape: Shape, kind: Kind) -> None:
    assert kinds(shape, noise=(0.05, 0.25), measures=(7, 16)) == {kind: SEEDS}
    assert kinds(shape)[kind] >= 0.93 * SEEDS  # updates that vary by half of their level, four measurements


def test_without_validation_what_cannot_be_seen_is_not_said() -> None:
    for shape in (still, converging, overfit, flat, noisy):
        found = kinds(shape, valid=False, before=False)
        assert not {"overfitting", "noisy labels possible", "unstable"} & set(found), found
    assert kinds(flat, valid=False, before=False)["not learning"] >= 0.9 * SEEDS
    assert kinds(still, valid=False, before=False, noise=(0.05, 0.2))["still learning"] >= 0.9 * SEEDS
    assert kinds(jump, valid=False, before=False)["unstable"] >= 0.93 * SEEDS


def test_the_loss_before_the_run_shows_a_fall_that_was_quick() -> None:
    assert kinds(converging)["not learning"] == 0
    assert kinds(converging, before=False)["not learning"] > 0  # what the measurement is for


def steady(n: int, loss: Callable[[float], float], valid: Callable[[float], float] | None = None) -> list[Update]:
    """A run at a constant rate with a little noise and ten measurements."""
    g, every = np.random.default_rng(0), max(1, n // 10)
    return [
        Update(
            i + 1,
            loss(i / n) * math.exp(0.1 * g.standard_normal()),
            valid(i / n) if valid and (i + 1) % every == 0 else None,
            1e-4,
        )
        for i in range(n)
    ]


def test_the_boundary_of_too_short() -> None:
    falling = steady(20, lambda u: math.exp(-2 * u))
    assert diagnose(falling[:19]).kind == "too short to tell"
    assert diagnose(falling).kind == "still learning"
    assert diagnose([]).kind == "too short to tell"


@pytest.mark.parametrize(("rise", "kind"), [(0.02, "converged"), (0.05, "overfitting")])
def test_the_boundary_of_overfitting(rise: float, kind: Kind) -> None:
    valid: Callable[[float], float] = lambda u: 1 - u if u < 0.4 else 0.6 * (1 + rise * (u - 0.4) / 0.5)  # noqa: E731
    found = diagnose(steady(200, lambda u: math.exp(-2 * u), valid), 1.0)
    assert found.kind in (kind, "noisy labels possible" if kind == "converged" else kind)
    if kind == "overfitting":
        assert found.step is not None
        assert 60 <= found.step <= 100
        assert found.sentence.startswith(f"since update {found.step} the validation loss rose from ")
        assert found.advice.startswith(f"train.steps={found.step} gives about the same")


@pytest.mark.parametrize(("level", "kind"), [(0.08, "converged"), (0.2, "noisy labels possible")])
def test_under_a_tenth_of_a_nat_there_is_no_room_for_wrong_labels(level: float, kind: Kind) -> None:
    run = steady(300, lambda u: level * math.exp(-2 * u), lambda u: level)
    assert diagnose(run, 2 * level).kind == kind


def test_rising_with_training_is_not_overfitting() -> None:
    rising = steady(300, lambda u: 1 + u, lambda u: 1 + u)
    assert diagnose(rising, 1.0).kind == "unstable"


def test_skipped_and_unfinite_updates() -> None:
    run = steady(100, lambda u: math.exp(-2 * u))
    one = [replace(p, loss=math.nan, skipped="rows.jsonl:3") if p.step == 50 else p for p in run]
    assert diagnose(one).kind == "still learning"
    found = diagnose([replace(p, loss=math.inf, skipped="rows.jsonl:3") if p.step % 10 == 0 else p for p in run])
    assert (found.kind, found.step) == ("unstable", 10)
    assert "10 of 100 updates" in found.sentence
    last = [replace(p, skipped="rows.jsonl:3") if p.step == 100 else p for p in run]
    assert diagnose(last).kind == "unstable"
    assert diagnose([replace(p, loss=math.nan) for p in run[:5]]).kind == "unstable"
    assert diagnose([replace(p, valid_loss=math.nan, rate=math.nan) for p in run], math.nan).kind == "still learning"


def test_a_level_says_nothing_only_its_course_does() -> None:
    for level in (0.05, 1.0, 8.0):
        assert diagnose(made(still, 1, level=level)[0]).kind == "still learning"
        assert diagnose(made(jump, 1, level=level)[0]).kind == "unstable"


def test_the_start_of_a_collapse_counts() -> None:
    # As lrhigh in curves.json: one update at the base's loss, then noise that slowly recovers.
    run = [replace(p, loss=0.03) if p.step == 1 else p for p in steady(60, lambda u: 5 - 2 * u)]
    found = diagnose(run)
    assert (found.kind, found.step) == ("unstable", 1)


def test_long_runs_are_no_burden() -> None:
    run = steady(20_000, lambda u: 0.3 + math.exp(-30 * u))
    started = time.perf_counter()
    assert diagnose(run).kind == "converged"
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("name", sorted(REAL))
def test_curves_that_nano_drew(name: str) -> None:
    real = REAL[name]
    valid = dict(real["valid"])
    run = [
        Update(i + 1, loss, valid.get(i + 1), rate)
        for i, (loss, rate) in enumerate(zip(real["loss"], real["rate"], strict=True))
    ]
    found = diagnose(run, real["before"])
    assert found.kind == real["kind"], found
    assert found.sentence
    assert found.advice
    assert "\n" not in found.sentence + found.advice
