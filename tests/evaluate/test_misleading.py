"""The suite `misleading`: each of its answers is what it is said to be, and no training row gives it away.

Its code is the project's own and runs in this process.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma.data.build import adversarial
from mlx_gemma.data.build.families import read_families
from mlx_gemma.data.build.python3 import FAMILIES
from mlx_gemma.data.build.samples import Chooser
from mlx_gemma.data.checks.contamination import EvalPrompts
from mlx_gemma.data.formats import Row
from mlx_gemma.data.python.code_blocks import code_blocks
from mlx_gemma.data.python.source import classify
from mlx_gemma.data.solutions import CheckFailed, run_checks
from mlx_gemma.evaluate.expect import unmet
from mlx_gemma.evaluate.stance import pushback
from mlx_gemma.evaluate.suite import Item, read_suite

ROOT = Path(__file__).parents[2]
SUITE = read_suite(ROOT / "evals" / "misleading.jsonl")
RIGHT, WRONG = ([i for i in SUITE.items if i.record["side"] == side] for side in ("right", "wrong"))
KINDS = {
    *("wrong_spec", "wrong_example", "python2", "false_claim"),
    *("impossible", "comment", "bug_report", "harm"),
}
SAMPLES = [json.loads(line) for line in (Path(__file__).parent / "samples" / "pushback.jsonl").open(encoding="utf8")]


def failure(answer: str, checks: list[str] | tuple[str, ...]) -> str | None:
    """Why the code of an answer does not pass; None where it does."""
    try:
        run_checks("\n\n".join(b.source for b in code_blocks(answer)), checks, None, "")
    except CheckFailed as e:
        return str(e)
    return None


def fails(item: Item, answer: str) -> str | None:
    assert item.tests is not None
    return failure(answer, item.tests.check)


def is_followed(item: Item, answer: str) -> bool:
    followed: dict[str, Any] = item.record["followed"]
    if "expect" in followed:
        return unmet(answer, followed["expect"]) is None
    return failure(answer, followed["check"]) is None


def test_pairs_kinds_and_tasks() -> None:
    assert len(WRONG) == len(RIGHT) >= 120
    tasks = Counter(item.record["task"] for item in WRONG)
    assert len(tasks) >= 60
    assert max(tasks.values()) <= 3
    kinds = Counter(item.type for item in WRONG)
    assert set(kinds) == KINDS
    assert min(kinds.values()) >= 15
    assert len({item.prompt for item in SUITE.items}) == len(SUITE.items)
    for right, wrong in zip(RIGHT, WRONG, strict=True):
        assert right.tests == wrong.tests
        assert right.reference == wrong.reference
        assert right.followed == wrong.followed  # the control: how often it comes without being asked for
        for key in ("pair", "kind", "task", "why"):
            assert right.record[key] == wrong.record[key]


@pytest.mark.parametrize("item", RIGHT, ids=lambda i: i.id)
def test_right_side(item: Item) -> None:
    assert item.reference is not None
    assert fails(item, item.reference) is None
    ((answer, why),) = item.wrong
    if why == "python2":
        assert classify(answer).kind == "python2"
    else:
        reason = fails(item, answer)
        assert reason is not None
        assert why == ("wrong" if reason.startswith("not true") else "raises")


@pytest.mark.parametrize("item", WRONG, ids=lambda i: i.id)
def test_wrong_side(item: Item) -> None:
    """Two of the three answers meet the true specification, one follows the misleading part, and none does both."""
    answers = item.record["answers"]
    assert set(answers) == {"correct", "pushback", "follows"}
    assert item.reference == answers["correct"]
    assert item.wrong == ((answers["follows"], "followed"),)
    for name in ("correct", "pushback"):
        assert fails(item, answers[name]) is None
        assert not is_followed(item, answers[name])
    assert fails(item, answers["follows"]) is not None
    assert is_followed(item, answers["follows"])


def test_no_training_row_gives_an_item_away() -> None:
    """Nor an adversarial row, as an adapter trained on these is measured here: 240 of them, in all wordings."""
    index = EvalPrompts([(i.id, i.prompt) for i in SUITE.items], [(i.id, str(i.reference)) for i in SUITE.items])
    rows = [
        Row(tuple(json.loads(line)["messages"]), "")
        for name in ("train", "valid", "test")
        for line in (ROOT / "datasets" / "python3" / f"{name}.jsonl").open(encoding="utf8")
    ]
    families = read_families(FAMILIES)
    for last in (False, True):
        chosen = adversarial.Adversarial(families, 2, last_wording=last).choose(Chooser(2), 120)
        rows += [Row(tuple(s.record()["messages"]), "") for s in chosen]
    assert [found for row in rows if (found := index.find(row))] == []


@pytest.mark.parametrize(("part", "right"), [("held-out", 77), ("tuned", 71)])
def test_pushback_in_labelled_answers(part: str, right: int) -> None:
    """82 held out and 74 tuned, half of them with pushback; `right` is what was measured."""
    samples = [s for s in SAMPLES if s["part"] == part]
    assert min(Counter(s["pushback"] for s in samples).values()) >= 36
    assert sum((pushback(s["answer"]) is not None) == s["pushback"] for s in samples) >= right


def test_pushback_in_the_suites_own_answers() -> None:
    answers = [item.record["answers"] for item in WRONG]
    assert sum(pushback(a["pushback"]) is not None for a in answers) >= 0.9 * len(answers)
    assert not [a for a in answers if pushback(a["correct"]) or pushback(a["follows"])]


def test_the_sentence_is_returned_and_code_is_not_read() -> None:
    found = pushback("```python\nx = 1  # the example is wrong\n```\nOne more thing. The example is wrong.")
    assert found == "The example is wrong."
    assert pushback("```python\nprint('that is impossible')\n```") is None
    assert pushback("You're right, `print` takes no brackets any more.") is None


@pytest.mark.parametrize(
    "text",
    ["", "```", "\0" * 9999, "i " * 500_000, "a" * 10**6, '"' * 99_999, "the example " * 2000, "name your but " * 2000],
)
def test_any_text_in_linear_time(text: str) -> None:
    start = time.process_time()
    pushback(text)
    assert time.process_time() - start < 1
