"""The `runs` check: answers that come with tests are run against them. That tells what no reading of the code can.

    {"messages": [...], "tests": {"check": ["f(2) == 4"], "prints": null, "stdin": ""}}     # as solutions.py has them

A row without tests is not run: a program that ends quietly shows nothing. An answer that needs a module which is not of
the standard library is not judged, as the sandbox has no other. This package knows no sandbox: who runs programs is
given (evaluate/answers_run.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from mlx_gemma.data.formats import Row
from mlx_gemma.data.python.code_blocks import code_blocks
from mlx_gemma.data.reason import Reason
from mlx_gemma.data.visible import one_line

CHECK = "runs"
TOGETHER = 32  # programs that are given at once; so many are held in memory, and waited for after Ctrl-C
NO_MODULE = "ModuleNotFoundError: "
NO_CODE = "no code"
SAYS = {
    "wrong": "gives a wrong result: ",
    "raises": "raises ",
    "timeout": "",  # its reason says it
    "stopped": "",
    NO_CODE: "has tests, and the answer has no Python to run",
}
# Outcomes that are counted and held against no row.
ASIDE = {"passed": "", "needs a module": "", "unreadable tests": ""}


class Program(NamedTuple):
    """An answer's code and its tests; the names are those of solutions.run_checks."""

    source: str
    check: tuple[str, ...]
    prints: str | None
    stdin: str


class Runner(Protocol):
    """Runs programs."""

    @property
    def how(self) -> dict[str, Any]:
        """What else decides the outcomes: JSON, for the cache and the report."""

    def __call__(self, programs: Sequence[Program]) -> Iterator[tuple[str, str]]:
        """(outcome, reason) of each, in order; outcomes are `passed`, `wrong`, `raises`, `timeout` and `stopped`."""


class Runs:
    """The rows of an audit, run. Time: the runner's, some 80 ms a program behind bubblewrap, two at once."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.outcomes = Counter[str]()

    def failing(self, rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row, Reason]]:
        """The rows, each with its number, whose answers fail their tests, in order."""
        coming = ((number, row, program(row)) for number, row in rows)
        tested = ((number, row, found) for number, row, found in coming if found is not None)
        while some := list(islice(tested, TOGETHER)):
            results = self._runner([found for *_, found in some if isinstance(found, Program)])
            for number, row, found in some:
                outcome, reason = next(results) if isinstance(found, Program) else (found, "")
                if outcome == "raises" and reason.startswith(NO_MODULE):
                    outcome = "needs a module"
                self.outcomes[outcome] += 1
                if outcome not in ASIDE:
                    yield number, row, Reason(CHECK, one_line(SAYS[outcome] + reason), outcome)

    def result(self) -> dict[str, int]:
        """Rows by outcome, the most frequent first."""
        return dict(self.outcomes.most_common())

    def line(self) -> str:
        """`result` in words."""
        told = ", ".join(f"{outcome} {n:,}" for outcome, n in self.outcomes.most_common())
        return f"runs: {self.outcomes.total():,} rows with tests: {told}" if told else "runs: no row has tests"


def program(row: Row) -> Program | str | None:
    """What is to be run of a row; the outcome, where that is known without; None of a row without tests."""
    tests = row.extra.get("tests")
    if not tests:
        return None
    if not isinstance(tests, dict):
        return "unreadable tests"
    check, prints, stdin = tests.get("check") or [], tests.get("prints"), tests.get("stdin") or ""
    texts = [*check, prints or "", stdin] if isinstance(check, list) else [None]
    if not all(isinstance(text, str) for text in texts) or not (check or prints):
        return "unreadable tests"
    source = "\n\n".join(block.source for block in code_blocks(row.answer))
    return Program(source, tuple(check), prints, stdin) if source.strip() else NO_CODE
