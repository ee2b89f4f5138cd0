"""A twist: one way in which a task is specified wrongly, and the proof that it is wrong.

The kinds are made by twist_rules.py from a family and its checks, the texts are in adversarial.toml. `holds` proves a
twist by running code, so that nothing true is called false.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from mlx_gemma.data import solutions as checks
from mlx_gemma.data.build.families import Task, run_checks
from mlx_gemma.data.solutions import CheckFailed

STEPS = 50_000  # lines and calls that misled code may take: counted, as a clock is not the same everywhere


@dataclass(frozen=True)
class Twist:
    """A wrong specification of one task. `say` and `truth` are wordings with $names, which `fields` fills in."""

    kind: str
    name: str
    say: Sequence[str]
    truth: Sequence[str]
    fields: Mapping[str, str]
    follows: str  # code that does as the wrong part says
    refuted: tuple[str, ...] = ()  # true after the sound solution has run: what shows that the wrong part is wrong
    keeps: tuple[str, ...] = ()  # true after `follows` has run: what shows that it does as it was told


def holds(task: Task, twist: Twist) -> bool:
    """Whether what is said is wrong, and code that follows it does as told and fails the task's checks. Runs both."""
    try:
        checks.run_checks(task.python3, twist.refuted, None, task.stdin)
        if twist.keeps:
            with _limited(STEPS):
                checks.run_checks(twist.follows, twist.keeps, None, task.stdin)
    except (CheckFailed, _TooLongError):
        return False
    try:
        with _limited(STEPS):
            run_checks(twist.follows, task)
    except CheckFailed:
        return True
    except _TooLongError:  # nobody's answers should loop for ever
        return False
    return False


class _TooLongError(BaseException):  # not an Exception, which the code on trial might catch
    pass


@contextmanager
def _limited(steps: int) -> Iterator[None]:
    """Stop code of the block after so many lines: another family's function may well loop for ever."""
    before, left = sys.gettrace(), steps

    def count(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooLongError
        return count

    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
