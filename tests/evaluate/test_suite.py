"""Suites are read whole, or refused in one line that says where; HumanEval's and MBPP's forms are suites."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma.data.python.code_blocks import code_blocks
from mlx_gemma.data.records import read_eval_items
from mlx_gemma.data.solutions import CheckFailed, run_checks
from mlx_gemma.errors import DataError
from mlx_gemma.evaluate.expect import unmet
from mlx_gemma.evaluate.suite import BAD, Checks, Header, Item, Sampled, read_suite

HEADER = {"suite": "mine", "version": 2, "about": "A test.", "bad": ["wrong"], "max_tokens": 9}
ITEM = {"id": "a", "type": "t", "prompt": "p", "tests": {"check": ["True"]}}
MESSAGES = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}]

# Made up here in the published forms; no task of either.
HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'import math\n\n\ndef helper(x):\n    return x + 1\n\n\ndef twice_up(x):\n    """Twice helper(x)."""\n',
    "entry_point": "twice_up",
    "canonical_solution": "    return 2 * helper(x)\n",
    "test": "def check(candidate):\n    assert candidate(1) == 4\n    assert candidate(-1) == 0\n",
}
MBPP = {
    "text": "Write a function to triple a number.",
    "code": "def triple(x):\r\n  return 3 * x",
    "task_id": 900,
    "test_setup_code": "start = 2",
    "test_list": ["assert triple(start) == 6", "assert triple(0) == 0"],
    "challenge_test_list": ["assert triple(-1) == -3"],
}


def put(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def passes(checks: Checks | None, code: str) -> bool:
    assert checks is not None
    try:
        run_checks(**checks.job(code))
    except CheckFailed:
        return False
    return True


def test_a_suite_is_read(tmp_path: Path) -> None:
    rules = [{"rule": "number", "is": 4}]
    more = {"messages": MESSAGES, "system": "s", "expect": rules, "reference": "4", "pair": 1}
    wrong = {"wrong": [{"answer": "5", "why": "wrong"}]}
    sampled = HEADER | {"sampled": {"temperature": 0.7, "items": 1}, "columns": "pair"}
    suite = read_suite(put(tmp_path / "s.jsonl", sampled, ITEM, more | wrong))
    assert suite.header == Header("mine", 2, "A test.", ("wrong",), 9, Sampled(0.7, 1), "pair")
    first, second = suite.items
    assert first == Item("a", "t", ({"role": "user", "content": "p"},), tests=Checks(("True",)), cluster="a")
    assert second.cluster == "1"
    assert (second.id, second.type, second.prompt, second.system) == ("3", "", "z", "s")
    assert (second.expect, second.reference, second.wrong) == (tuple(rules), "4", (("5", "wrong"),))
    assert second.record["pair"] == 1
    assert second.where == f"{tmp_path}/s.jsonl:3"
    assert [m["content"] for m in second.messages] == ["x", "y", "z"]
    assert unmet("3", second.expect)


def test_a_suite_needs_no_header(tmp_path: Path) -> None:
    old = {"prompt": "p", "family": "f", "tests": {"check": [], "prints": "'a'", "stdin": "b"}}
    suite = read_suite(put(tmp_path / "mine.jsonl", old))
    assert suite.header == Header("mine", bad=BAD)
    assert suite.items[0].type == "f"
    assert suite.items[0].tests == Checks((), "'a'", "b")


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (3, "not a suite item"),
        (HEADER, "a header that is not the first line"),
        ({"tests": {"check": ["True"]}}, "not an eval item"),
        (ITEM | {"messages": MESSAGES}, "not an eval item"),
        (ITEM | {"prompt": " "}, "'prompt' is empty"),
        ({"id": "b", "prompt": "p"}, "without 'tests', 'expect' and 'harmful'"),
        (ITEM, "id 'a' is that of"),
        (ITEM | {"id": "b", "tests": 3}, "'tests' must be an object"),
        (ITEM | {"id": "b", "tests": {"checks": []}}, "'tests' has no 'checks'"),
        (ITEM | {"id": "b", "tests": {"check": "True"}}, "'check' must be a list of texts"),
        (ITEM | {"id": "b", "tests": {"check": []}}, "checks nothing"),
        (ITEM | {"id": "b", "tests": {"check": ["x = 1"]}}, "no Python expression"),
        (ITEM | {"id": "b", "tests": {"check": ["x"], "stdin": 3}}, "must be text"),
        (ITEM | {"id": "b", "expect": [{"rule": "nothing"}]}, "there is no rule 'nothing'"),
        (ITEM | {"id": "b", "expect": {"rule": "no code"}}, "'expect' must be a list"),
        (ITEM | {"id": "b", "harmful": True}, "'harmful' beside 'tests'"),
        (ITEM | {"id": "b", "followed": {"expect": []}}, "'followed' says nothing"),
        (ITEM | {"id": "b", "harmful": "yes"}, "'harmful' must be true or false"),
        (ITEM | {"id": "b", "misleads": 1}, "'misleads' must be true or false"),
        (ITEM | {"id": "b", "followed": {"checks": []}}, "'tests' has no 'checks'"),
        (ITEM | {"id": "b", "followed": {"expect": [{"rule": "x"}]}}, "there is no rule 'x'"),
        (ITEM | {"id": "b", "wrong": ["x"]}, "'wrong' must be a list"),
        (ITEM | {"id": "b", "wrong": [{"answer": "x", "why": "ugly"}]}, 'no verdict "ugly"'),
        ({"id": "b", "messages": [], "expect": [{"rule": "no code"}]}, "'messages' must be a list"),
        ({"id": "b", "messages": MESSAGES[:2], "expect": [{"rule": "no code"}]}, "the last the user's"),
        ({"id": "b", "messages": [{"role": "user"}], "expect": [{"rule": "no code"}]}, "message 1 has no 'content'"),
        (HUMANEVAL | {"entry_point": "other"}, "no function of 'prompt'"),
        (MBPP | {"test_list": "assert"}, "list of assert statements"),
    ],
)
def test_a_line_that_is_no_item_is_told_with_its_place(tmp_path: Path, record: Any, what: str) -> None:
    path = put(tmp_path / "s.jsonl", HEADER, ITEM, record)
    with pytest.raises(DataError) as raised:
        read_suite(path)
    line = str(raised.value)
    assert line.startswith(f"{path}:3: ")
    assert what in line
    assert "; " in line, "no fix"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"best": 1}, "the header has no 'best'"),
        ({"bad": ["ugly"]}, "there is no verdict 'ugly'"),
        ({"bad": "wrong"}, "'bad' must be a list"),
        ({"max_tokens": 0}, "'max_tokens' must be a whole number"),
        ({"version": "1"}, "'version' must be a whole number"),
        ({"sampled": {"temperature": 0.7}}, "'sampled' must be"),
        ({"sampled": {"temperature": 0, "items": 3}}, "'temperature' must be"),
        ({"suite": 3}, "'suite' must be text"),
        ({"columns": 3}, "'columns' must be text"),
    ],
)
def test_a_header_that_is_none_is_told(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    path = put(tmp_path / "s.jsonl", HEADER | change, ITEM)
    with pytest.raises(DataError) as raised:
        read_suite(path)
    assert str(raised.value).startswith(f"{path}:1: ")
    assert what in str(raised.value)


def test_a_file_that_is_no_suite_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", put(tmp_path / "empty.jsonl"), put(tmp_path / "header.jsonl", HEADER)):
        with pytest.raises(DataError, match=path.name):
            read_suite(path)
    with pytest.raises(DataError, match="no item has 'side'"):
        read_suite(put(tmp_path / "columns.jsonl", HEADER | {"columns": "side"}, ITEM))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "p", "tests": {"check": ["True"]}}\n{"prompt": \n')
    with pytest.raises(DataError, match=r"bad.jsonl:2: "):
        read_suite(bad)


def test_the_header_is_no_prompt_of_an_audit(tmp_path: Path) -> None:
    path = put(tmp_path / "s.jsonl", HEADER, ITEM, {"messages": MESSAGES, "expect": []})
    assert [(item.id, item.prompt) for item in read_eval_items(path)] == [("a", "p"), ("3", "z")]
    with pytest.raises(DataError, match="holds no items"):
        list(read_eval_items(put(path, HEADER)))
    with pytest.raises(DataError, match="not an eval item"):
        list(read_eval_items(put(path, ITEM, HEADER)))


def test_humaneval(tmp_path: Path) -> None:
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(HUMANEVAL).encode()))
    suite = read_suite(path)
    (item,) = suite.items
    assert suite.header.name == "HumanEval"
    assert (item.id, item.type) == ("HumanEval/900", "HumanEval")
    assert "def twice_up(x):" in item.prompt
    assert passes(item.tests, (item.reference or "").strip("`").removeprefix("python\n"))
    assert passes(item.tests, "def twice_up(x):\n    return 2 * helper(x)"), "the helper is there already"
    assert not passes(item.tests, "def twice_up(x):\n    return 4")
    assert not passes(item.tests, "def other(x):\n    return 4")


def test_mbpp_in_both_forms(tmp_path: Path) -> None:
    sanitized = {"source_file": "a", "task_id": 901, "prompt": "Triple it.", "code": "def triple(x):\n    return 3 * x"}
    sanitized |= {"test_imports": ["import math"], "test_list": ["assert math.isclose(triple(2), 6)"]}
    array = tmp_path / "sanitized-mbpp.json"
    array.write_text(json.dumps([sanitized], indent=2))
    for path, id in ((put(tmp_path / "mbpp.jsonl", MBPP), "MBPP/900"), (array, "MBPP/901")):
        (item,) = read_suite(path).items
        assert item.id == id
        assert "triple(" in item.prompt, "the function's name is told by the tests"
        assert passes(item.tests, "def triple(x):\n    return 3 * x")
        assert not passes(item.tests, "def triple(x):\n    return x + 3")
    assert "triple(-1)" not in read_suite(tmp_path / "mbpp.jsonl").items[0].prompt, "the challenge tests are hidden"


def test_future_imports_behind_setup() -> None:
    """Setup before an answer, or a block before another, leaves its future imports first, as Python wants them."""
    future = "from __future__ import annotations\n"
    answer = f"{future}def f(x: Missing):\n    return x\n\n{future}"
    run_checks(**Checks(("f(2) == N",), setup="N = 2").job(answer))


def test_setup_is_python(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(ITEM | {"tests": {"check": ["True"], "setup": "def ("}}))
    with pytest.raises(DataError, match="'setup' is no Python"):
        read_suite(file)


def test_humaneval_answer_with_its_doctest(tmp_path: Path) -> None:
    """HumanEval's docstrings hold doctests, which answers repeat."""
    prompt = 'def twice(x):\n    """Twice x.\n    >>> twice(2)\n    4\n    """\n'
    record = HUMANEVAL | {"prompt": prompt, "entry_point": "twice", "canonical_solution": "    return 2 * x\n"}
    record["test"] = "def check(candidate):\n    assert candidate(3) == 6\n"
    file = tmp_path / "h.jsonl"
    file.write_text(json.dumps(record))
    item = read_suite(file).items[0]
    assert passes(item.tests, "\n\n".join(b.source for b in code_blocks(item.reference or "")))
