"""What runs in the sandbox, within which limits, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "wrong", "raises", "timeout", "stopped"]


@dataclass(frozen=True)
class Job:
    """A program and its tests, as data/solutions.py has them.

    Args:
        source: Python 3.
        check: expressions that must be true after it has run.
        prints: a Python expression for its whole standard output; None: not compared.
        stdin: what `input()` reads.
    """

    source: str
    check: tuple[str, ...] = ()
    prints: str | None = None
    stdin: str = ""


@dataclass(frozen=True)
class Limits:
    """Of one run. Sizes are bytes, times seconds."""

    cpu: int = 4
    wall: float = 8.0
    memory: int = 512 * 2**20  # address space
    file: int = 2**20
    scratch: int = 16 * 2**20  # everything in the scratch directory
    open_files: int = 32
    threads: int = 64


@dataclass(frozen=True)
class Result:
    """What came of a job.

    Args:
        outcome: `passed`; `wrong`: a check was not true, or could not be evaluated for want of a name; `raises`: the
            program raised; `timeout`: CPU or wall seconds were used up; `stopped`: the process ended without a
            result (a limit, a crash, `os._exit`).
        reason: one sentence; empty where it passed.
        seconds: wall time, the start of the process included.
    """

    outcome: Outcome
    reason: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"
