"""Degenerate repetition: loops are found, and what only looks alike is not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from mlx_gemma.evaluate.repetition import repetition
from mlx_gemma.evaluate.suite import read_suite

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "text",
    [
        "I can help with that. " * 20,
        "```python\ndef f():\n" + "    print(x)\n" * 30,
        "the the the the " * 20,
        "Here it is:\n" + "def add(a, b):\n    return a + b\n\n" * 8,
        "A good answer in the beginning, of some length, as it should be. " + "and so on " * 40,
    ],
)
def test_loops(text: str) -> None:
    assert repetition(text)


@pytest.mark.parametrize(
    "text",
    ["", "no", "-" * 80, "=" * 300, "0, " * 200, "| 1 | 2 |\n" * 40, "print(1)\nprint(2)\nprint(3)\n" * 2, "ha " * 20],
)
def test_what_is_none(text: str) -> None:
    assert repetition(text) is None


def test_no_good_answer_of_this_repository_is_one() -> None:
    files = [read_suite(f) for f in sorted((ROOT / "evals").glob("*.jsonl"))]
    answers = [item.reference for suite in files for item in suite.items if item.reference]
    lines = (ROOT / "datasets/python3/train.jsonl").read_text().splitlines()
    answers += [json.loads(line)["messages"][-1]["content"] for line in lines]
    assert len(answers) > 5_000
    assert [a for a in answers if repetition(a)] == []


@pytest.mark.parametrize("text", ["\0" * 10**6, "ab" * 10**6, "\ud800" * 99_999, "x " * 10**6])
def test_any_text_in_bounded_time(text: str) -> None:
    start = time.process_time()
    repetition(text)
    assert time.process_time() - start < 1
