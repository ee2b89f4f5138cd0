"""Answering a suite: the answers are `generate`'s, a killed run goes on and equals one that was not, verdicts count."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_gemma4 import random_adapter

from mlx_gemma.decode.generate import as_messages, generate
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.errors import DataError
from mlx_gemma.evaluate.results import Row, append_rows, read_rows
from mlx_gemma.evaluate.run import evaluate, finished
from mlx_gemma.evaluate.suite import Suite, read_suite
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.variants import Variants

PROMPTS = (
    "Implement a function descending that returns the integers from start to 1 in descending order as a list.",
    "Write a function last(values) that returns the last item of a list, or None.",
    "Write a function that counts the vowels in a text, count_vowels(text).",
    "Print the numbers from 1 to 5, one per line.",
    "hi",
)


@pytest.fixture(scope="module")
def nano() -> Gemma:
    return load("nano")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    path = tmp_path_factory.mktemp("suite") / "small.jsonl"
    header = {"suite": "small", "max_tokens": 48, "sampled": {"temperature": 0.7, "items": 3}, "columns": "side"}
    items = [
        {"id": f"i{n}", "prompt": p, "tests": {"check": ["descending(4) == [4, 3, 2, 1]"]}, "side": "ab"[n % 2]}
        for n, p in enumerate(PROMPTS)
    ]
    path.write_text("\n".join(map(json.dumps, [header, *items])))
    return read_suite(path)


@pytest.fixture(scope="module")
def rows(nano: Gemma, suite: Suite) -> list[Row]:
    return evaluate(nano, suite, batch=2, seed=4)


def same(a: list[Row], b: list[Row]) -> bool:
    return [replace(r, seconds=0.0) for r in a] == [replace(r, seconds=0.0) for r in b]


def test_the_answers_are_those_of_generate(nano: Gemma, rows: list[Row]) -> None:
    assert [(r.mode, r.id) for r in rows] == [
        *(("greedy", f"i{n}") for n in range(5)),
        *(("sampled", f"i{n}") for n in range(3)),
    ]
    for row, place in zip(rows, [0, 1, 2, 3, 4, 0, 1, 2], strict=True):
        sampling = Sampling() if row.mode == "greedy" else Sampling(0.7, seed=4 + place)
        alone = generate(nano, PROMPTS[place], sampling=sampling, max_tokens=48)
        assert (row.text, row.finish) == (alone.text, alone.finish)
        assert "".join(piece for piece, *_ in row.tokens) == row.text


def test_the_first_item_is_solved_and_the_others_are_not_that_program(rows: list[Row]) -> None:
    assert [r.bad for r in rows[:5]] == [False, True, True, True, True]
    assert rows[0].verdicts == ()
    assert rows[0].column == "a"
    assert all(r.reason for r in rows[1:5])
    for row in rows:
        lowest = min(p for _, p, _ in row.tokens)
        assert row.decision <= math.exp(lowest) + 1e-4
        assert row.logprob <= 0


def test_greedy_and_sampled_repeat_exactly(nano: Gemma, suite: Suite, rows: list[Row]) -> None:
    assert same(rows, evaluate(nano, suite, batch=2, seed=4))
    other = evaluate(nano, suite, batch=2, seed=5)
    assert same(other[:5], [replace(r, seed=5) for r in rows[:5]])
    assert [r.text for r in other[5:]] != [r.text for r in rows[5:]]


@pytest.mark.parametrize("kept", [0, 1, 2, 5])
def test_a_killed_run_goes_on_and_equals_a_whole_one(
    nano: Gemma, suite: Suite, rows: list[Row], tmp_path: Path, kept: int
) -> None:
    file = tmp_path / "results.jsonl"
    evaluate(nano, suite, batch=2, seed=4, file=file)
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 8
    file.write_bytes(b"".join(lines[:kept]) + lines[kept][:40])  # as it stands after a power cut
    assert finished(suite, read_rows(file)) is None
    counted: list[tuple[int, int]] = []
    again = evaluate(nano, suite, batch=2, seed=4, file=file, progress=lambda done, of: counted.append((done, of)))
    assert counted[0] == (kept, 8)
    assert counted[-1] == (8, 8)
    assert same(again, rows)
    found = finished(suite, read_rows(file))
    assert found is not None
    assert same(found, rows)


def test_results_are_read_as_they_were_written(rows: list[Row], tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    assert read_rows(file) == []
    hostile = replace(rows[0], text="\ud800 </script> \0 \u2028", reasons={"wrong": "é"})
    append_rows(file, [hostile])
    append_rows(file, rows[1:])
    assert read_rows(file) == [hostile, *rows[1:]]
    file.write_text("{}\n" + file.read_text(errors="replace"))
    with pytest.raises(DataError, match="no result of this version") as raised:
        read_rows(file)
    assert str(raised.value).startswith(f"{file}:1: ")


def test_a_system_prompt_stands_before_the_items_own(nano: Gemma, suite: Suite) -> None:
    item = replace(suite.items[0], system="Answer in one block.")
    (row,) = evaluate(nano, Suite(replace(suite.header, sampled=None), (item,)), system="Prefer Python 3.")
    assert row.system == "Prefer Python 3.\n\nAnswer in one block."
    alone = generate(nano, as_messages(PROMPTS[0], row.system), max_tokens=48)
    assert row.text == alone.text


class Alternating:
    """A router that has the adapter answer every other prompt."""

    def __init__(self, variants: Variants, adapter: Path) -> None:
        self.variants, self.adapter = variants, adapter

    def route(self, query: str) -> str:
        return "mine" if PROMPTS.index(query) % 2 else "base"

    def use(self, route: str) -> None:
        self.variants.use(self.adapter if route == "mine" else None)


def test_a_router_says_who_answers(suite: Suite, rows: list[Row], tmp_path: Path) -> None:
    random_adapter("nano", tmp_path / "mine", size=0.2)
    alone = evaluate(load("nano", adapter=tmp_path / "mine"), suite, batch=2, seed=4)
    variants = Variants(load("nano"))
    variants.add(tmp_path / "mine")
    routed = evaluate(variants.gemma, suite, batch=2, seed=4, router=Alternating(variants, tmp_path / "mine"))
    assert [r.route for r in routed] == ["base", "mine", "base", "mine", "base", "base", "mine", "base"]
    wanted = [b if r.route == "mine" else a for a, b, r in zip(rows, alone, routed, strict=True)]
    assert [r.text for r in routed] == [r.text for r in wanted]
    assert [r.text for r in routed] != [r.text for r in rows]


def test_an_item_that_cannot_be_asked_names_its_place(nano: Gemma, suite: Suite) -> None:
    item = replace(suite.items[0], messages=({"role": "user", "content": "a <|turn> b"},))
    with pytest.raises(DataError, match=r"small\.jsonl:2"):
        evaluate(nano, Suite(suite.header, (item,)))
