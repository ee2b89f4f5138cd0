"""The `runs` check: which rows are run, what of it is held against them, and where that leaves their duplicates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma.data.audit import audit
from mlx_gemma.data.audit.cache import audit_files
from mlx_gemma.data.checks.runs import TOGETHER, Program, program
from mlx_gemma.data.formats import Row
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.data.solutions import CheckFailed, run_checks

POLICY = FilterPolicy(near_duplicates="keep")
TESTS = {"check": ["double(2) == 4"], "prints": None, "stdin": ""}


class InProcess:
    """Runs programs here: the test's own are harmless. Keeps what it was given."""

    how: dict[str, Any] = {"wall": "test"}  # noqa: RUF012

    def __init__(self) -> None:
        self.asked: list[Sequence[Program]] = []

    def __call__(self, programs: Sequence[Program]) -> Iterator[tuple[str, str]]:
        self.asked.append(programs)
        for one in programs:
            try:
                run_checks(*one)
                yield "passed", ""
            except CheckFailed as e:
                yield "raises" if e.__cause__ else "wrong", str(e)


def row(n: int, code: str | None, tests: Any = TESTS, prompt: str = "") -> Row:
    answer = f"Sure.\n\n```python\n{code}\n```" if code is not None else "Multiply it by two."
    talk = [{"role": "user", "content": prompt or f"Double it, {n}."}, {"role": "assistant", "content": answer}]
    return Row(talk, f"rows.jsonl:{n}", {"tests": tests} if tests is not None else {})


GOOD = "def double(x):\n    return 2 * x"
ROWS = [
    row(1, GOOD),
    row(2, "def double(x):\n    return x ** 3"),
    row(3, "def double(x):\n    return x.two"),
    row(4, "import numpy_of_nobody\n" + GOOD),
    row(5, None),
    row(6, "def double(x):\n    return 3 * x", tests=None),  # without tests nothing is known of it
    row(7, "def double(x): return 2 * x\nprint double(2)"),  # Python 2 is rejected before
    row(8, GOOD, tests=["assert double(2) == 4"]),
    row(9, "print(input() * 2)", tests={"prints": "'abab\\n'", "stdin": "ab"}),
]


def test_what_fails_is_left_out_and_the_outcomes_add_up() -> None:
    runner = InProcess()
    report = audit(ROWS, POLICY, run=runner)
    found = {j.row.where[11:]: j.reasons for j in report.rejected}
    assert {n: [(r.check, r.name) for r in reasons] for n, reasons in found.items()} == {
        "2": [("runs", "wrong")],
        "3": [("runs", "raises")],
        "5": [("runs", "no code")],
        "7": [("python2", "print statement")],
    }
    assert found["2"][0].message == "gives a wrong result: not true: double(2) == 4"
    assert found["3"][0].message == "raises AttributeError: 'int' object has no attribute 'two'"
    assert report.whole["runs"] == {
        "passed": 2, "wrong": 1, "raises": 1, "needs a module": 1, "no code": 1, "unreadable tests": 1,
    }  # fmt: skip
    assert any(line.startswith("runs: 7 rows with tests: passed 2, ") for line in report.remarks)
    assert report.found()["runs"] == 3
    (asked,) = runner.asked
    assert len(asked) == 5


def test_keep_counts_and_trains_all_the_same() -> None:
    report = audit(ROWS[:3], POLICY.model_copy(update={"runs": "keep"}), run=InProcess())
    assert (report.rejected_count, report.found()["runs"], report.action("runs")) == (0, 2, "keep")


def test_a_row_that_fails_never_stands_in_for_a_good_one() -> None:
    """It comes first, and the good row is its near duplicate."""
    wrong, good = (
        row(n, GOOD.replace("2", two) + "\n" * n, prompt="Double a number, please.") for n, two in ((1, "3"), (2, "2"))
    )
    assert [r.where for r in audit([wrong, good], FilterPolicy(near_duplicates=0.7)).kept] == [wrong.where]
    assert [r.where for r in audit([wrong, good], FilterPolicy(near_duplicates=0.7), run=InProcess()).kept] == [
        good.where
    ]


def test_what_was_not_looked_for_is_off() -> None:
    policy = POLICY.model_copy(update={"limits": {"runs": 0.0, "contamination": 0.0}})
    report = audit(ROWS[:1], policy)
    assert (report.action("runs"), report.action("contamination")) == ("off", "off")
    assert sum(line.startswith(("limits.runs was not", "limits.contamination was not")) for line in report.remarks) == 2
    assert audit(ROWS[:1], policy, run=InProcess()).action("runs") == "reject"
    assert audit(ROWS[:2], policy, run=InProcess()).breaches()


def test_some_at_a_time_and_in_order() -> None:
    rows = [row(n, GOOD if n % 3 else "double = 1 / 0") for n in range(2 * TOGETHER + 5)]
    runner = InProcess()
    report = audit(rows, POLICY, run=runner)
    assert [len(asked) for asked in runner.asked] == [TOGETHER, TOGETHER, 5]
    assert [j.row.where for j in report.rejected] == [r.where for r in rows[::3]]


@pytest.mark.parametrize(
    "tests", ["double(2) == 4", [], {"check": [1]}, {"check": "x"}, {"stdin": ""}, {"prints": 4}, 7]
)
def test_tests_of_another_shape_are_no_fault_of_the_row(tests: Any) -> None:
    assert program(row(1, GOOD, tests)) in (None, "unreadable tests")
    assert audit([row(1, GOOD, tests)], POLICY, run=InProcess()).found()["runs"] == 0


def test_the_cache_knows_whether_answers_were_run(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(r.as_json()) + "\n" for r in ROWS))
    runner = InProcess()
    for run, found, cached in ((None, 0, False), (runner, 3, False), (runner, 3, True), (None, 0, True)):
        report = audit_files(str(data), POLICY, run=run)
        assert (report.found()["runs"], report.from_cache, report.action("runs") == "off") == (found, cached, not found)
    assert len(runner.asked) == 1


def test_in_the_sandbox() -> None:
    from mlx_gemma.errors import UserError
    from mlx_gemma.evaluate.answers_run import Sandboxed
    from mlx_gemma.evaluate.sandbox import choose

    try:
        runner = Sandboxed(choose())
    except UserError:
        pytest.skip("no sandbox on this machine")
    rows = [*ROWS[:4], row(10, "while True: pass"), row(11, "import os\nos._exit(0)")]
    assert audit(rows[:4], POLICY, run=runner).whole["runs"] == {
        "passed": 1,
        "wrong": 1,
        "raises": 1,
        "needs a module": 1,
    }
    assert [r.name for j in audit(rows[4:], POLICY, run=runner).rejected for r in j.reasons] == ["timeout", "stopped"]
    assert runner.how["wall"] == runner.wall.kind
