"""Which answers refuse, correct or push back: on labelled answers, on the project's own adversarial rows, on prose."""

from __future__ import annotations

import ast
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from mlx_gemma.data.balance.stances import stance
from mlx_gemma.data.build.adversarial import Adversarial
from mlx_gemma.data.build.families import read_families
from mlx_gemma.data.build.python3 import FAMILIES
from mlx_gemma.data.build.samples import Chooser

# 157 answers written before the rules; 82 of them only look like a refusal, a correction or pushback.
SAMPLES = [json.loads(line) for line in (Path(__file__).parent / "samples" / "stances.jsonl").open(encoding="utf8")]


@pytest.mark.parametrize("part", ["tuned", "held-out"])
def test_labelled_answers(part: str) -> None:
    """One in a hundred may be wrong: "Water does not boil at 50 degrees" is a correction only by what it says."""
    samples = [s for s in SAMPLES if s["part"] == part]
    assert Counter(s["label"] == "none" for s in samples)[True] >= 41
    wrong = [s for s in samples if (stance(s["answer"]) or "none") != s["label"]]
    assert len(wrong) <= 0.015 * len(samples), wrong


def test_adversarial_rows_are_found() -> None:
    """Corrections as `data build --pushback` writes them, in words that nobody wrote for these rules: 0.98 measured.

    When they were seen for the first time, 0.20 were found: in unknown words, the share is a lower bound.
    """
    samples = Adversarial(read_families(FAMILIES), 1, last_wording=False).choose(Chooser(1), 120)
    assert sum(stance(s.answered) is not None for s in samples) >= 0.95 * len(samples)


def test_answers_that_comply_are_not_found() -> None:
    rows = Path(__file__).parents[2] / "datasets" / "python3" / "test.jsonl"
    answers = [json.loads(line)["messages"][-1]["content"] for line in rows.open(encoding="utf8")]
    assert not [a for a in answers if stance(a)]


def test_prose_about_code_is_not_found() -> None:
    """Docstrings of the standard library take no stance; 3 of its 5,328 were taken for one, here at most 1 in 100."""
    docs = set()
    for module in (ast, json, Counter, Path, time):
        file = Path(
            str(getattr(__import__(module.__module__ if isinstance(module, type) else module.__name__), "__file__", ""))
        )
        if file.suffix == ".py":
            nodes = ast.walk(ast.parse(file.read_text(encoding="utf8")))
            docs |= {d for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef) and (d := ast.get_docstring(n))}
    assert len(docs) > 100
    assert len([d for d in docs if stance(d)]) <= 0.01 * len(docs)


@pytest.mark.parametrize(
    "text", ["", "```", "\0" * 9999, "i " * 500_000, "so " * 300_000, "I'm sorry, " * 90_000, '"' * 99_999, "a" * 10**6]
)
def test_any_text_in_linear_time(text: str) -> None:
    start = time.process_time()
    stance(text)
    assert time.process_time() - start < 1


def test_what_code_says_does_not_count() -> None:
    assert stance("```python\nprint(\"I'm sorry, I can't help with that.\")\n```") is None
    assert stance("I'm sorry, I can\u2019t help with that.") == "refusal"
    assert stance("Sure.\n~~~\nI can't help with that.\n~~~\n") is None
