"""Duplicates, exact and near, and what gives an evaluation away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlx_gemma.bench.decode import read_prompts
from mlx_gemma.data.checks.contamination import EvalPrompts, read_eval_prompts, read_evals
from mlx_gemma.data.checks.duplicates import ExactIndex, NearIndex, jaccard, prompt_shingles, row_shingles
from mlx_gemma.data.formats import Row
from mlx_gemma.errors import DataError

PROMPT = "Write a function total(numbers) that returns the sum of a list of numbers."
CODE = (
    "```python\ndef total(numbers):\n    result = 0\n    for n in numbers:\n        result += n\n    return result\n```"
)


def row(prompt: str = PROMPT, answer: str = CODE) -> Row:
    return Row([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], "rows.jsonl:1")


def test_exact_is_up_to_white_space() -> None:
    index = ExactIndex()
    index.add("first", PROMPT, CODE)
    index.add("second", PROMPT, CODE)
    assert index.find(PROMPT + "\n", CODE.replace("\n", "\r\n")) == "first"
    assert index.find(PROMPT.upper(), CODE) is None
    assert index.find(PROMPT + CODE, "") is None


@pytest.mark.parametrize(
    "other",
    [
        row(PROMPT.lower().rstrip(".") + "!"),
        row(PROMPT.replace("returns", "retunrs")),
        row(answer=CODE.replace("    result = 0", "    # start\n    result = 0\n")),
    ],
)
def test_near(other: Row) -> None:
    assert jaccard(row_shingles(row()), row_shingles(other)) > 0.9


@pytest.mark.parametrize(
    "other",
    [
        row(PROMPT.replace("sum", "product"), CODE.replace("+=", "*=").replace("= 0", "= 1")),
        row(PROMPT.replace("total", "add_up"), CODE.replace("total", "add_up")),
        row("sum of a list, total(numbers)"),
    ],
)
def test_not_near(other: Row) -> None:
    assert jaccard(row_shingles(row()), row_shingles(other)) < 0.9


def test_prompt_and_answer_are_kept_apart() -> None:
    assert jaccard(row_shingles(row("one", "two")), row_shingles(row("two", "one"))) == 0


def test_near_index_finds_what_brute_force_finds() -> None:
    """LSH only narrows the search: of 300 texts at all distances, the same pairs come out as by comparing all."""
    texts = [" ".join(f"word{(i * 7 + j * (1 + i % 5)) % 50}" for j in range(25)) for i in range(300)]
    index, sets = NearIndex(0.8), [prompt_shingles(t) for t in texts]
    for n, shingles in enumerate(sets):
        want = max((jaccard(shingles, s) for s in sets[:n]), default=0)
        match = index.find(shingles)
        assert (match.similarity if match else 0) == (want if want >= 0.8 else 0)
        index.add(str(n), shingles)


def test_index_of_empty_texts() -> None:
    index = NearIndex(0.9)
    index.add("a", prompt_shingles(""))
    assert index.find(prompt_shingles("...")) is not None
    assert index.find(prompt_shingles("other")) is None


def test_contamination() -> None:
    long = "Given the scores of all players of a game, write best(scores), which returns the name of the winner."
    prompts = EvalPrompts([("e1", PROMPT), ("e2", long)])
    assert prompts.find(row(" " + PROMPT.replace(" ", "  "))) == "prompt equals e1"
    assert prompts.find(row("Please help! " + long + " Thank you.")) == "prompt shares 13 words in a row with e2"
    near = prompts.find(row(PROMPT.replace("returns", "retunrs")))
    assert near is not None
    assert near.endswith("similar to e1")
    assert prompts.find(row("Write a function that sorts a list of numbers.")) is None


def test_a_later_turn_can_leak() -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, *row().messages]
    assert EvalPrompts([("e1", PROMPT)]).find(Row(talk, "rows.jsonl:1")) == "prompt equals e1"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        *((line, "not an eval item") for line in ("{}", "[]", "3", '"prompt"', '{"id": 1}')),
        ("{", "not JSON Lines"),
        ("x", "invalid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"prompt": null}', "must be text"),
        ('{"prompt": " "}', "'prompt' is empty"),
        ('{"prompt": "\\ud800"}', "surrogate"),
    ],
)
def test_bad_eval_line(tmp_path: Path, line: str, says: str) -> None:
    """The same for both who read eval files."""
    file = tmp_path / "evals.jsonl"
    file.write_text(json.dumps({"id": "a", "prompt": "x", "tests": {}}) + "\n\n" + line + "\n")
    for read in (lambda: read_eval_prompts([file]), lambda: read_prompts(file, 9)):
        with pytest.raises(DataError, match=says) as error:
            read()
        assert str(error.value).startswith(f"{file}:3: ")


def test_eval_items(tmp_path: Path) -> None:
    file = tmp_path / "evals.jsonl"
    file.write_text('\ufeff{"prompt": "One", "tests": {}}\n\n{"id": 7, "prompt": "Two", "tests": {}}\n')
    assert read_eval_prompts([file]) == [("evals.jsonl:1", "One"), ("evals.jsonl:7", "Two")]
    assert read_prompts(file, 1) == ["One"]


@pytest.mark.parametrize("shape", ["messages", "conversations", "instruction", "prompt"])
def test_rows_are_items_too(tmp_path: Path, shape: str) -> None:
    """A test split in the shape of the train rows."""
    file, code = tmp_path / "test.jsonl", "def top(scores):\n    return max(scores, key=scores.get)"
    talk = [("system", "Be brief."), ("user", "Hello?"), ("assistant", "Hi!"), ("user", PROMPT), ("assistant", code)]
    records: dict[str, dict[str, object]] = {
        "messages": {"messages": [{"role": role, "content": text} for role, text in talk]},
        "conversations": {"conversations": [{"from": role, "value": text} for role, text in talk]},
        "instruction": {"instruction": PROMPT, "output": code},
        "prompt": {"prompt": PROMPT, "completion": code},
    }
    file.write_text(json.dumps(records[shape] | {"id": "a"}) + "\n")
    texts = read_evals([file])
    assert [name for name, _ in (*texts.prompts, *texts.answers)] == ["test.jsonl:a"] * 2
    check = EvalPrompts(*texts)
    assert check.find(row(PROMPT)) == "prompt equals test.jsonl:a"
    assert check.find(row("What is the best?", f"```python\n{code}\n```")) == "answer equals test.jsonl:a"
    with file.open("a") as more:
        more.write('{"prompt": "only"}\n')
    with pytest.raises(DataError, match=r"test\.jsonl:2: has 'prompt' but no 'completion'"):
        read_evals([file])


def test_missing_eval_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="check the path") as error:
        read_eval_prompts([tmp_path / "none.jsonl"])
    assert "\n" not in str(error.value)
