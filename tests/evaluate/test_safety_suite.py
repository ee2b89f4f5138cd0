"""The suite `safety`, and the rule that tells refusal, compliance and incoherence apart, on labelled answers."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from mlx_gemma.data.formats import read_rows
from mlx_gemma.evaluate import refusal_rules
from mlx_gemma.evaluate.refusal import response, safety_verdict
from mlx_gemma.evaluate.suite import Item, read_suite

ROOT = Path(__file__).parents[2]
SUITE = read_suite(ROOT / "evals" / "safety.jsonl")
SAMPLES = [json.loads(line) for line in (Path(__file__).parent / "samples" / "refusals.jsonl").open(encoding="utf8")]


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("tuned", 0),  # before the rules, which were then written on it
        ("held-out", 0),  # before the rules: 80 of 80 when they were first run
        ("second", 0),  # after them, in other tones: 52 of 71 when first run, then mended
        ("third", 4),  # after that: 61 of 76 when first run, then mended in part
    ],
)
def test_labelled_answers(part: str, wrong: int) -> None:
    samples = [s for s in SAMPLES if s["part"] == part]
    assert len(samples) >= 70
    assert min(Counter(s["label"] for s in samples).values()) >= 17
    missed = [s for s in samples if response(s["answer"], s["prompt"]) != s["label"]]
    assert len(missed) <= wrong, missed


def test_the_rules_do_not_know_the_sign_for_removed_content() -> None:
    assert "removed" not in "".join(v for v in vars(refusal_rules).values() if isinstance(v, str) and v != v.__doc__)
    assert "content" not in "".join(refusal_rules.REFUSAL) + refusal_rules.TURN


def test_the_suite_is_balanced_and_paired() -> None:
    items = SUITE.items
    assert len(items) >= 100
    assert Counter(item.type for item in items) == dict.fromkeys(
        ("harmful, text", "harmful, json", "benign, text", "benign, json"), len(items) // 4
    )
    assert Counter(i.record["kind"] for i in items if i.record["harmful"]) == Counter(
        i.record["kind"] for i in items if not i.record["harmful"]
    )
    pairs: dict[int, list[Item]] = {}
    for item in items:
        pairs.setdefault(item.record["pair"], []).append(item)
    for text, as_json in pairs.values():
        assert (text.record["form"], as_json.record["form"]) == ("text", "json")
        assert text.prompt in _leaves(json.loads(as_json.prompt))
        assert text.record["harmful"] == as_json.record["harmful"]


def _leaves(value: object) -> set[str]:
    if isinstance(value, dict | list):
        return set().union(*map(_leaves, value.values() if isinstance(value, dict) else value))
    return {str(value)}


@pytest.mark.parametrize("item", SUITE.items, ids=lambda item: str(item.id))
def test_the_reference_is_good_and_the_wrong_answers_are_bad(item: Item) -> None:
    harmful = item.record["harmful"]
    assert safety_verdict(item.reference or "", item.prompt, harmful=harmful) == "good"
    assert item.wrong
    for answer, why in item.wrong:
        assert why == ("comply" if harmful else "refused")
        assert why in SUITE.header.bad
        assert safety_verdict(answer, item.prompt, harmful=harmful) == why
        if harmful:  # nothing that anybody could use is published here
            assert "[content removed]" in answer
            assert len(answer.replace("[content removed]", "")) < 80


@pytest.mark.parametrize("answer", ["", "the the the the the the the the", "{}", "def f(x):\n    return x + x"])
def test_incoherence_is_neither_good_nor_bad(answer: str) -> None:
    verdicts = {safety_verdict(answer, i.prompt, harmful=i.record["harmful"]) for i in SUITE.items}
    asks_code = {"comply", "good"} if answer.startswith("def") else set()  # some requests ask for a program
    assert verdicts - asks_code == {"incoherent"}
    assert "incoherent" not in SUITE.header.bad


def test_answers_to_other_requests_comply() -> None:
    """Of the 224 answers of a data set's test rows, all comply; and so do answers that must say "cannot"."""
    for row in read_rows(ROOT / "datasets" / "python3" / "test.jsonl"):
        assert response(row.messages[-1]["content"], row.messages[0]["content"]) == "comply"
    for item in read_suite(ROOT / "evals" / "regression.jsonl").items:
        assert response(item.reference or "", item.prompt) == "comply", item.id


@pytest.mark.parametrize(
    "answer",
    [
        *("", "```", "\0" * 9999, "i " * 500_000, "I'm sorry, " * 90_000, '"' * 99_999, "a" * 10**6, "[" * 10**6),
        *('{"a":' * 10**5, "{" + "\\" * 10**6, "a b " * 10**5, "i have to " * 10**5, "x = " * 10**5, "but " * 10**5),
        *("\ud800", '{"a": "\\ud800"}', "I can't\n" * 10**5, '{"a": ' + "9" * 3000 + "}", "1e999", "[NaN]"),
        *("[" * 1900 + "]" * 1900, '{"a":' * 600 + "1" + "}" * 600),
    ],
)
def test_any_text_in_little_time(answer: str) -> None:
    start = time.process_time()
    assert response(answer, "Tell me.") in ("refuse", "comply", "incoherent")
    assert time.process_time() - start < 0.5
