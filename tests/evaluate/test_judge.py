"""Verdicts on answers, and what the limits contain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlx_gemma.errors import DataError
from mlx_gemma.evaluate.judge import Item, judge, read_suite
from mlx_gemma.evaluate.stats import Rate

ADD = Item("add", "Write add(a, b).", ("add(2, 3) == 5", "raises(TypeError, add, 1, 'x')"), None, "")
SHOUT = Item("shout", "Read a name, greet it.", (), "'Hello, Ann!\\n'", "Ann\n")


def fenced(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\nDone."


@pytest.mark.parametrize(
    ("item", "answer", "verdict"),
    [
        (ADD, fenced("def add(a, b):\n    return a + b"), "good"),
        (ADD, "def add(a, b):\n    return a + b", "good"),
        (ADD, fenced("def add(a, b):\n    return a - b"), "fails"),
        (ADD, fenced("def plus(a, b):\n    return a + b"), "fails"),
        (ADD, fenced("def add(a, b):\n    while True:\n        pass"), "fails"),
        (ADD, fenced("def add(a, b):\n    return [0] * 10**10"), "fails"),
        (ADD, fenced("import sys\nsys.exit(0)"), "fails"),
        (ADD, fenced("import os\nos._exit(0)"), "fails"),
        (ADD, fenced("print('{\"passed\": true}')"), "fails"),
        (ADD, fenced("def add(a, b):\n    print a + b"), "python2"),
        (ADD, fenced("def add(a, b):\n    return sum(xrange(a))"), "python2"),
        (ADD, fenced("def add(a, b)\n    return a + b"), "broken"),
        (ADD, "```python\ndef add(a, b):\n    return a +", "truncated"),
        (ADD, "I would rather not.", "no code"),
        (ADD, "", "no code"),
        (SHOUT, fenced("print(f'Hello, {input()}!')"), "good"),
        (SHOUT, fenced("print('Hello, Bob!')"), "fails"),
        (SHOUT, fenced("open('/tmp/x', 'w').write('x' * 10**8)"), "fails"),
    ],
)
def test_verdicts(item: Item, answer: str, verdict: str) -> None:
    found = judge(answer, item)
    assert found.verdict == verdict, found
    assert found.bad == (verdict != "good")
    assert "\n" not in found.reason


def test_a_suite_is_read_and_its_faults_are_located(tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    good = {"id": "a", "prompt": "p", "tests": {"check": ["True"]}}
    path.write_text(json.dumps(good) + "\n")
    assert read_suite(path) == [Item("a", "p", ("True",), None, "")]
    for tests in ("", ', "tests": 3', ', "tests": {"check": "True"}', ', "tests": {"stdin": 3}'):
        line = f'{{"prompt": "p"{tests}}}'
        path.write_text(json.dumps(good) + "\n" + line + "\n")
        with pytest.raises(DataError, match="no suite item") as raised:
            read_suite(path)
        assert str(raised.value).startswith(f"{path}:2: ")


def test_every_prompt_of_the_repository_is_solvable() -> None:
    """The solutions, which raw.jsonl leaks word for word for two prompts in three, pass; an empty program does not."""
    root = Path(__file__).parents[2]
    items = read_suite(root / "evals" / "python3.jsonl")
    assert len(items) == 60
    raw = [json.loads(line)["messages"] for line in (root / "datasets/python3/raw.jsonl").read_text().splitlines()]
    answers = {messages[0]["content"]: messages[1]["content"] for messages in raw}
    solved = [item for item in items if item.prompt in answers][::4]
    assert len(solved) >= 8
    for item in solved:
        assert judge(answers[item.prompt], item).verdict == "good", item.id
        assert judge("```python\npass\n```", item).verdict == "fails", item.id


def test_wilson_intervals() -> None:
    # Brown, Cai and DasGupta (2001): 0 of n has upper limit z^2 / (n + z^2).
    low, high = Rate(0, 69).interval
    assert low == 0
    assert high == pytest.approx(1.959964**2 / (69 + 1.959964**2))
    assert str(Rate(1, 65)) == "1/65 1.5% (0.3%-8.2%)"
    assert str(Rate(0, 0)) == "0/0"
