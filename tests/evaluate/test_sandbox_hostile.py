"""Hostile programs, none of which gets out: behind every wall that this machine has."""

from __future__ import annotations

import os
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_gemma.evaluate.sandbox import Job, Limits, Wall, run_all
from mlx_gemma.evaluate.sandbox.canary import PRELUDE, Attempt, Outside, got_out, outside
from mlx_gemma.evaluate.sandbox.run import starts
from mlx_gemma.evaluate.sandbox.walls import offered

HOSTILE: dict[str, dict[str, str]] = tomllib.loads((Path(__file__).parent / "hostile.toml").read_text())
QUICK = Limits(cpu=1, wall=3.0)
# What raises because a library is closed to it, not because the way is: still closed.
CLOSED_TOO = ("ModuleNotFoundError", "URLError", "OperationalError", "BrokenProcessPool")
WALLS = [w for w in offered() if starts(w)]


@pytest.fixture(scope="module")
def aimed_at() -> Iterator[Outside]:
    """Targets, and a temporary directory of this module's own: what stays in it was left by these programs."""
    with tempfile.TemporaryDirectory(prefix="t") as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", root)
        with outside() as found:
            yield found


def test_there_are_enough() -> None:
    assert sum(len(programs) for programs in HOSTILE.values()) >= 100


@pytest.mark.parametrize("wall", WALLS, ids=lambda w: w.kind)
@pytest.mark.parametrize("category", [name for name in HOSTILE if name != "forgery"])
def test_none_gets_out(category: str, wall: Wall, aimed_at: Outside) -> None:
    programs = HOSTILE[category]
    targets = aimed_at.targets(loopback=wall.kind == "bubblewrap")
    jobs = [Attempt(name, code).job(targets) for name, code in programs.items()]
    started = time.monotonic()
    open_ways = {}
    for name, result in zip(programs, run_all(jobs, wall=wall, limits=QUICK), strict=True):
        why = got_out(result.outcome, result.reason)
        if why and not (result.outcome == "raises" and result.reason.startswith(CLOSED_TOO)):
            open_ways[name] = why
        assert result.seconds < QUICK.wall + 30
    assert not open_ways
    assert time.monotonic() - started < len(jobs) * 10
    time.sleep(0.3)
    assert aimed_at.broken() == []
    assert os.listdir(aimed_at.folder.parent) == [aimed_at.folder.name]


@pytest.mark.parametrize("wall", WALLS, ids=lambda w: w.kind)
def test_no_verdict_is_forged(wall: Wall) -> None:
    """Wrong programs that try to be judged right, by means that do not name this project's functions."""
    programs = HOSTILE["forgery"]
    jobs = [Job(PRELUDE.format(targets={}) + code, ("2 + 2 == 5",)) for code in programs.values()]
    results = dict(zip(programs, run_all(jobs, wall=wall, limits=QUICK), strict=True))
    assert [name for name, result in results.items() if result.passed] == []


def test_a_forgery_made_for_this_program_is_possible() -> None:
    """What docs/sandbox.md says remains: an object that lies about being equal, in the process of the checks."""
    source = "class Any:\n    def __eq__(self, other): return True\ndef f(): return Any()"
    assert next(run_all([Job(source, ("f() == 5",))])).passed
