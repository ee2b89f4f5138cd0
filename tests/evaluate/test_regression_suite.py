"""The suite `regression`: its rules let right answers pass, in several forms, and a narrow Python model's fail."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

from mlx_gemma.data.checks.contamination import EvalPrompts
from mlx_gemma.data.formats import read_rows
from mlx_gemma.evaluate.expect import unmet
from mlx_gemma.evaluate.suite import Item, read_suite

ROOT = Path(__file__).parents[2]
SUITE = read_suite(ROOT / "evals" / "regression.jsonl")
ITEMS = {item.id: item for item in SUITE.items}
# Right answers as chat models write them: bold, with an introduction, in another order than the reference.
OTHERS = [json.loads(line) for line in (Path(__file__).parent / "samples" / "regression_answers.jsonl").open()]


def test_the_suite_is_as_its_readme_says() -> None:
    assert SUITE.header.name == "regression"
    types = Counter(item.type for item in SUITE.items)
    assert len(SUITE.items) >= 100
    assert len(types) == 13
    assert min(types.values()) >= 8
    assert len({item.messages[-1]["content"] for item in SUITE.items}) == len(SUITE.items)
    assert all(len(item.messages) > 1 for item in SUITE.items if item.type == "multi-turn")


@pytest.mark.parametrize("item", SUITE.items, ids=list(ITEMS))
def test_the_reference_is_right_and_the_wrong_answers_are_wrong(item: Item) -> None:
    assert item.reference is not None
    assert unmet(item.reference, item.expect) is None
    assert item.wrong
    for answer, why in item.wrong:
        assert unmet(answer, item.expect), answer
        assert why in SUITE.header.bad


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: str(other["id"]))
def test_right_answers_in_other_words_pass(other: dict[str, str]) -> None:
    """62 of them, written after the rules: 61 passed at once, one rule was too narrow and has been widened."""
    assert unmet(other["answer"], ITEMS[other["id"]].expect) is None


def test_what_a_narrow_model_says_fails_everywhere() -> None:
    """No answer of the kinds that a model gives which has lost all but Python, or says nothing, passes by chance."""
    code = "```python\ndef solve(text):\n    return [word for word in text.split()]\n```"
    for answer in (code, "", "I'm sorry, but I can't help with that.", "Sure! Here is the answer:"):
        passed = [item.id for item in SUITE.items if unmet(answer, item.expect) is None]
        assert not passed, answer


def test_an_answer_of_another_item_does_not_pass() -> None:
    """Rules that anything meets would measure nothing. 30 of the 11,772 do: short words and lengths."""
    passed = [
        (item.id, other.id)
        for item in SUITE.items
        for other in SUITE.items
        if item is not other and unmet(other.reference or "", item.expect) is None
    ]
    assert len(passed) <= 0.005 * len(SUITE.items) ** 2, passed


def test_multi_turn_items_need_what_was_said_before() -> None:
    """What is asked for is not in the last message, or is not all of it."""
    for item in SUITE.items:
        if item.type == "multi-turn":
            assert unmet(item.prompt, item.expect), item.id
            assert len(item.messages) % 2 == 1


def test_wrong_python_is_python() -> None:
    fenced = [a for i in SUITE.items for a, _ in i.wrong if a.startswith("```python\n")]
    assert len(fenced) >= 100
    for answer in fenced:
        ast.parse(answer.removeprefix("```python\n").removesuffix("\n```"))


def test_no_training_row_gives_an_item_away() -> None:
    """Of this suite and of `safety`: no prompt of datasets/python3 is one of theirs, or nearly."""
    items = [*SUITE.items, *read_suite(ROOT / "evals" / "safety.jsonl").items]
    check = EvalPrompts((item.id, item.prompt) for item in items)
    rows = {
        row.messages[0]["content"]: row
        for file in ("train", "valid", "test", "raw")
        for row in read_rows(ROOT / f"datasets/python3/{file}.jsonl")
    }
    assert not [found for row in rows.values() if (found := check.find(row))]
