"""What an audit says of several splits, of prompts in other words, and of the model's own control tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlx_gemma.data.audit import audit
from mlx_gemma.data.audit.cache import audit_files
from mlx_gemma.data.audit.checks import TOKENIZER, control_tokens
from mlx_gemma.data.audit.held_out import LISTED, Again, compare_splits, splits_beside
from mlx_gemma.data.audit.page import page
from mlx_gemma.data.balance.counts import Balance
from mlx_gemma.data.checks.leakage import leaks
from mlx_gemma.data.formats import Row, scan_rows
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.errors import DataError
from mlx_gemma.gemma4.checkpoint import NANO
from mlx_gemma.gemma4.template import ChatTemplate

ROOT = Path(__file__).parents[2]
POLICY = FilterPolicy(malformed="reject", near_duplicates="keep")
TOPICS = ("the rivers of a country", "every prime below a bound", "lines of a log file", "angles of a polygon")


def row(n: int, ask: str | None = None, family: str | None = None, answer: str = "") -> dict[str, object]:
    asked = ask or f"Write function number{n} that lists {TOPICS[n % 4]} in {n} ways, {'abcdefgh'[n % 8] * 9}."
    code = f"```python\ndef number{n}():\n    return {n}{answer}\n```"
    return {"prompt": asked, "completion": code} | ({"family": family} if family else {})


def write(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of train's rows, prompts and families some are in valid, and of valid's in test."""
    train = [row(n, family=f"f{n}") for n in range(9)] + [row(9, "Print nine.", answer=" +")]
    write(tmp_path / "set" / "train.jsonl", train)
    asked = str(row(3)["prompt"])
    valid = [row(2), row(30, asked), row(31, "Sum a list of floats.", "f5"), row(32, "Sum it again, and loud!", "f5")]
    write(tmp_path / "set" / "validation.jsonl", valid)
    test = [row(30, asked.upper()), row(9, "Print nine."), row(40, "Reverse each of the words.")]
    write(tmp_path / "set" / "test.jsonl", test)
    return tmp_path / "set"


def test_splits_of_a_folder_are_compared(folder: Path) -> None:
    first, second = (audit_files(str(folder), POLICY) for _ in range(2))
    splits = first.as_json()["splits"]
    assert splits["rows"] == {"train": 9, "valid": 4, "test": 3}  # the broken row is not trained
    counted = {(x["split"], x["of_split"], x["how"]): x["found"] for x in splits["leaks"]}
    assert counted == {
        ("valid", "train", "exact"): 1,
        ("valid", "train", "prompt"): 1,
        ("valid", "train", "family"): 1,
        ("test", "train", "normalised"): 1,
        ("test", "valid", "normalised"): 1,
    }
    repeated = next(x for x in splits["listed"] if x["how"] == "exact")
    assert (repeated["where"], repeated["of"]) == (f"{folder}/validation.jsonl:1", f"{folder}/train.jsonl:3")
    assert f"leakage: 1 families of valid are in train too; the first: {folder}/validation.jsonl:3" in "\n".join(
        first.remarks
    )
    assert "leakage: 2 rows of valid are in train too (1 exact, 1 prompt)" in "\n".join(first.remarks)
    assert (second.from_cache, second.as_json()["splits"]) == (True, splits)
    write(folder / "test.jsonl", [row(40)])
    changed = audit_files(str(folder), POLICY)
    assert (changed.from_cache, changed.as_json()["splits"]["rows"]["test"]) == (False, 1)


def test_the_page_shows_what_is_in_two_splits(folder: Path) -> None:
    document = page(audit_files(str(folder), POLICY))
    shown = document[document.index('<section id="splits"') :].split("</section>")[0]
    assert "Rows compared: train 9, valid 4, test 3." in shown
    assert "valid and train: <b>2 of 4 rows of valid and 1 families</b> in both" in shown
    assert "test and valid: <b>1 of 3 rows of test</b> in both" in shown
    assert f'<span class="where" title="{folder}/validation.jsonl:1">validation.jsonl:1</span>' in shown
    assert f"repeats {folder}/train.jsonl:3 in train" in shown
    one = page(audit_files(str(folder / "train.jsonl"), POLICY))
    assert 'id="splits"' not in one
    write(folder / "test.jsonl", [row(40, "Reverse each of the words.")])
    (folder / "validation.jsonl").unlink()
    assert "Rows compared: train 9, test 1. Nothing is in two of them." in page(audit_files(str(folder), POLICY))


def test_lengths_are_not_compared_where_nothing_was_counted(folder: Path) -> None:
    rows = [r for r in scan_rows(folder / "train.jsonl") if isinstance(r, Row)]
    told, lines = compare_splits(lambda: rows, None, {"valid": Again(str(folder), "valid")}, lambda done: None)
    assert (told["drift"], told["rows"]["valid"]) == ([], 4)
    assert all(line.startswith("leakage: ") for line in lines)


def test_a_recipes_validation_stands_for_the_folders(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [row(50, "Walk a tree.")])
    splits = audit_files(str(folder), POLICY, valid=str(other)).as_json()["splits"]
    assert splits["rows"] == {"train": 9, "valid": 1, "test": 3}
    assert {x["split"] for x in splits["leaks"]} == {"test"}
    with pytest.raises(DataError, match="no such file"):
        splits_beside(str(folder), str(tmp_path / "none.jsonl"))
    assert splits_beside(str(folder / "train.jsonl")) == {}
    assert "splits" not in audit_files(str(folder / "train.jsonl"), POLICY).as_json()


def test_a_split_that_cannot_be_read_is_a_remark(folder: Path) -> None:
    (folder / "test.jsonl").write_text("")
    with (folder / "validation.jsonl").open("a") as file:
        file.write("{\n")
    report = audit_files(str(folder), POLICY)
    assert report.whole["splits"]["unreadable"] == {"valid": 1}
    assert "1 rows of valid cannot be read" in report.remarks
    assert any(line.startswith("test was not compared with train: ") for line in report.remarks)


def test_holding_only_what_leaks_finds_what_holding_all_finds() -> None:
    """The rows of train that are compared are chosen; by all of them the leaks are the same."""
    rows = {}
    for split in ("train", "valid"):
        rows[split] = [r for r in scan_rows(ROOT / f"datasets/python3/{split}.jsonl") if isinstance(r, Row)][:400]
    rows["valid"] = [*rows["valid"][:40], *(r for r in rows["train"][::7])]
    for i in range(0, len(rows["valid"]), 5):  # near ones
        r = rows["valid"][i]
        said = [{**r.messages[0], "content": r.messages[0]["content"] + " Do."}, *r.messages[1:]]
        rows["valid"][i] = Row(said, r.where, {})
    told, _ = compare_splits(lambda: rows["train"], Balance(), {"valid": rows["valid"]}, lambda done: None)
    expected = [(x.where, x.reason.name, x.reason.of, x.reason.message) for x in leaks(rows)]
    assert len({how for _, how, *_ in expected}) >= 3
    assert [(x["where"], x["how"], x["of"], x["message"]) for x in told["listed"]] == expected
    assert len(expected) < LISTED


def test_lengths_that_drift_are_told() -> None:
    def rows(count: int, length: int) -> list[Row]:
        talk = [{"role": "user", "content": "Say."}, {"role": "assistant", "content": "so " * length}]
        return [Row(talk, f"x:{i}") for i in range(count)]

    report = audit(rows(60, 20), FilterPolicy(exact_duplicates="keep"), held_out={"valid": rows(60, 90)})
    assert "answers of train and valid differ in length" in report.whole["splits"]["drift"][0]
    assert any(line.startswith("length drift: answers of train") for line in report.remarks)
    same = audit(rows(60, 20), FilterPolicy(exact_duplicates="keep"), held_out={"valid": rows(60, 20)})
    assert same.whole["splits"]["drift"] == []


def test_semantic_twins_are_left_out_where_the_policy_says_so() -> None:
    asked = ["Write a function that reverses a string.", "Write a function which reverses strings.", "Add two numbers."]
    rows = [
        Row([{"role": "user", "content": a}, {"role": "assistant", "content": f"{a}."}], f"x:{i}")
        for i, a in enumerate(asked)
    ]
    plain = audit(rows, POLICY)
    assert (plain.kept_count, plain.policy.action("semantic")) == (3, "off")
    report = audit(rows, POLICY.model_copy(update={"semantic": 0.5}))
    assert [(j.row.where, j.reasons[0].check, j.reasons[0].of) for j in report.rejected] == [("x:1", "semantic", "x:0")]
    assert report.clusters() == {"x:0": ["x:1"]}
    assert report.found()["semantic"] == 1
    broken = Row([rows[0].messages[0], {"role": "assistant", "content": "```python\nprint 1\n```"}], "x:9")
    after = audit([broken, rows[1]], POLICY.model_copy(update={"semantic": 0.5}))
    assert after.kept_count == 1  # a rejected row stands in for none


def test_control_tokens_are_those_of_the_recipes_model(tmp_path: Path) -> None:
    assert sorted(control_tokens()) == sorted(ChatTemplate(NANO).control_tokens)
    told = json.loads(TOKENIZER.read_text())
    told["added_tokens"].append(told["added_tokens"][0] | {"content": "<|mine|>", "id": 9999, "special": True})
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    rows = [Row([{"role": "user", "content": "Say <|mine|>."}, {"role": "assistant", "content": "It."}], "x:1")]
    says = [j.reasons[0].message for j in audit(rows, tokenizer=tmp_path / "tokenizer.json").rejected]
    assert "the control token <|mine|>" in says[0]
    assert not any("the control token" in str(j.reasons) for j in audit(rows).judged())
