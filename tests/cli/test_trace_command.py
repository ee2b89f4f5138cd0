"""`mlx-gemma trace` and the commands below it, as a user calls them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_gemma4 import random_adapter

from mlx_gemma.cli import main
from mlx_gemma.gemma4.checkpoint import NANO

PROMPT = "Print the numbers from 1 to 5, one per line."
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gemma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mlx-gemma", "trace", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_a_table_with_a_decision_and_rivals(gemma: Run) -> None:
    status, out, _ = gemma("nano", PROMPT, "--uncertain", "2", "--decide", " range", "--decide", " xrange", "--find")
    assert status == 0
    for part in ("·range 62.1% ◀", "decided at position 6", "anything else", "python3 → python2"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_page(gemma: Run, tmp_path: Path) -> None:
    status, out, _ = gemma("nano", PROMPT, "--html", "trace.html", "--branches", "2")
    assert status == 0
    assert "open it in a browser" in out
    assert "<!doctype html>" in (tmp_path / "trace.html").read_text()[:20].lower()


LONG = "```python\nvalue_of_everything = [number for number in range(1, 5 + 1) if number % 2 == 0 and number > 10]\n```"


@pytest.mark.parametrize(
    "options",
    [
        ("--temperature", "0.8", "--seed", "3"),
        ("--by", "line", "--force", LONG),
        ("--by", "word", "--force", LONG),
        ("--force", LONG, "--columns", "10"),
    ],
)
def test_numbers_are_never_cut(gemma: Run, options: tuple[str, ...]) -> None:
    status, out, _ = gemma("nano", PROMPT, *options)
    assert status == 0
    table = out[out.index(" #  ") :].splitlines()
    assert max(map(len, table)) <= 80
    assert not [line for line in table if re.search(r"\d…|…%", line)]


@pytest.mark.parametrize("unit", ["word", "line"])
def test_units(gemma: Run, unit: str) -> None:
    status, out, _ = gemma("nano", PROMPT, "--by", unit)
    assert status == 0
    assert "decided at" in out


def test_json_is_all_that_is_printed(gemma: Run) -> None:
    status, out, err = gemma("nano", PROMPT, "--json", "--top", "2", "--decide", " range", "--decide", " xrange")
    assert status == 0
    assert json.loads(out)["trace"]["schema"] == 1
    assert "decided at position 6" in err


def test_saved_and_compared(gemma: Run) -> None:
    assert gemma("nano", PROMPT, "--save", "a.json")[0] == 0
    assert gemma("nano", PROMPT, "--system", "Prefer Python 3.", "--save", "b.json")[0] == 0
    assert gemma("nano", PROMPT, "--max-tokens", "5", "--save", "c.json")[0] == 0
    status, out, _ = gemma("diff", "a.json", "a.json")
    assert (status, out[:9]) == (0, "the same:")
    status, out, _ = gemma("diff", "a.json", "c.json")
    assert (status, out[:10]) == (1, "different:")
    status, _, err = gemma("diff", "a.json", "b.json")
    assert status == 2
    assert "trace compare" in err


def test_comparing(gemma: Run, tmp_path: Path) -> None:
    random_adapter(NANO, tmp_path / "run", size=0.02)
    status, out, _ = gemma("compare", tmp_path / "run", PROMPT, "--decide", " range", "--decide", " xrange")
    assert status == 0
    assert "decided at 6" in out
    assert "mean KL" in out
    rows = [{"prompt": PROMPT}, {"prompt": "Count from 0 to 9."}, {"prompt": "Say hello."}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    system = ("--system-b", "Prefer Python 3, not Python 2.")
    status, out, _ = gemma(
        "compare", "nano", "--prompts", "prompts.jsonl", "--decide", " range", "--decide", " xrange", *system
    )
    assert status == 0
    assert "of 3" in out
    assert "bootstrap over 3 prompts" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("compare", "nano", PROMPT), "both sides would be the same"),
        (("compare", "nano"), "give either PROMPT or --prompts"),
        (("compare", "nano", PROMPT, "--system-b", "x", "--decide", "yield", "--decide", "lambda"), "is in the answer"),
        (("nano", ""), "the prompt is empty"),
        (("nano", PROMPT, "--decide", "a"), "between two texts"),
        (("nano", PROMPT, "--top", "101"), "out of range"),
        (("nano", PROMPT, "--force", ""), "the given answer is empty"),
        (("diff", "none.json", "none.json"), "cannot be read"),
    ],
)
def test_one_line_for_bad_input(gemma: Run, args: tuple[str, ...], says: str) -> None:
    status, _, err = gemma(*args)
    assert status == 2
    assert says in err
    assert err.count("\n") == 1


def test_help_names_what_is_below(gemma: Run) -> None:
    _, out, _ = gemma("--help")
    for name in ("compare", "diff", "blame"):
        assert name in out
    assert "--tolerance" in gemma("diff", "--help")[1]


def test_a_decision_that_is_none_is_refused_before_the_answer(gemma: Run) -> None:
    status, out, err = gemma("nano", PROMPT, "--decide", " range", "--max-tokens", "2")
    assert (status, out) == (2, "")
    assert "--decide" in err


def test_candidates_that_were_not_kept_are_not_said_to_be_cut_by_the_width(gemma: Run) -> None:
    _, out, _ = gemma("nano", PROMPT, "--top", "1", "--columns", "5", "--max-tokens", "2")
    assert "candidates fit" not in out


def test_data_only_and_a_proof_exclude_each_other(gemma: Run) -> None:
    status, out, err = gemma("blame", "nano", PROMPT, "--data-only", "--retrain")
    assert (status, out) == (2, "")
    assert "--retrain" in err
