"""`mlx-gemma eval`, as a user calls it: tables, folders, resuming, comparisons, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_gemma4 import random_adapter

from mlx_gemma.cli import main
from mlx_gemma.evaluate import sandbox

Run = Callable[..., tuple[int, str, str]]
ITEMS = [
    {"suite": "small", "version": 2, "about": "Two requests.", "max_tokens": 40}
    | {"sampled": {"temperature": 0.7, "items": 1}},
    {
        "id": "down",
        "type": "plain",
        "prompt": "Implement a function descending that returns the integers from start to 1 in descending order"
        " as a list.",
        "tests": {"check": ["descending(4) == [4, 3, 2, 1]"]},
    },
    {"id": "hi", "type": "talk", "prompt": "hi", "expect": [{"rule": "contains", "any": ["bonjour"]}]},
]  # fmt: skip


@pytest.fixture
def gemma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mlx-gemma", "eval", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "small.jsonl"
    path.write_text("\n".join(map(json.dumps, ITEMS)))
    return path


def test_one_model(gemma: Run, suite: Path) -> None:
    status, out, _ = gemma(suite, "--model", "nano")
    assert status == 0
    for part in (
        "small, version 2: Two requests.",
        "greedy",
        "sampled at 0.7",
        "1/2 50 % (9-91)",
        "confidence by mean",
    ):
        assert part in out
    table = out.split("confidence")[0]
    assert max(map(len, table.splitlines())) <= 80
    folder = Path("runs/eval/small/nano")
    assert {p.name for p in folder.iterdir()} == {"results.jsonl", "settings.json", "report.html"}
    assert len((folder / "results.jsonl").read_text().splitlines()) == 3
    assert json.loads((folder / "settings.json").read_text())["model"] == "nano"
    assert "<!doctype html>" in (folder / "report.html").read_text()[:20].lower()


def test_what_is_finished_is_shown_again_and_other_settings_are_not_mixed_in(gemma: Run, suite: Path) -> None:
    gemma(suite, "--model", "nano")
    file = Path("runs/eval/small/nano/results.jsonl")
    before = file.read_bytes()
    status, out, _ = gemma(suite, "--model", "nano")
    assert (status, file.read_bytes()) == (0, before)
    assert "1/2 50 %" in out
    status, _, err = gemma(suite, "--model", "nano", "--seed", "1")
    assert status == 2
    assert "holds answers made with another seed; add --fresh" in " ".join(err.split())
    assert file.read_bytes() == before
    assert gemma(suite, "--model", "nano", "--seed", "1", "--fresh")[0] == 0
    assert json.loads(file.read_text().splitlines()[-1])["seed"] == 1
    suite.write_text(suite.read_text().replace("bonjour", "hello"))
    status, _, err = gemma(suite, "--model", "nano", "--seed", "1")
    assert (status, "another version of the suite's items" in " ".join(err.split())) == (2, True)


def test_an_adapter_and_its_base(gemma: Run, suite: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "mine"
    random_adapter("nano", adapter)
    status, out, _ = gemma(suite, "--model", "nano", "--adapter", adapter, "--compare", "base")
    assert status == 0
    for part in ("nano", "mine", "points", "cannot tell", "could have shown: ", "Holm"):
        assert part in out
    assert all(len(line) <= 80 for line in out.split("95 % intervals")[0].splitlines() if "report.html" not in line)
    status, out, _ = gemma(suite, "--model", "nano", "--adapter", adapter, "--compare", "base", "--json")
    found = json.loads(out)["suites"]["small"]
    assert set(found) == {"nano", "mine", "compared", "report"}
    assert found["nano"]["rates"]["greedy"]["bad"] == [1, 2]


def test_two_system_prompts(gemma: Run, suite: Path) -> None:
    status, out, _ = gemma(suite, "--model", "nano", "--system", "Prefer Python 3.", "--compare-system", "")
    assert status == 0
    assert "nano+" in out
    rows = next(Path("runs/eval/small").glob("nano+*")) / "results.jsonl"
    assert json.loads(rows.read_text().splitlines()[0])["system"] == "Prefer Python 3."


def test_perplexity(gemma: Run, suite: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "print(1)"}]
    rows.write_text("\n".join([json.dumps({"messages": turns})] * 3))
    status, out, _ = gemma(suite, "--model", "nano", "--no-sampled", "--perplexity", rows)
    assert status == 0
    assert "perplexity, nano: " in out
    assert "tokens of 3 rows" in out


def test_nothing_runs_where_the_sandbox_has_holes(gemma: Run, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def holes() -> sandbox.Proof:
        return sandbox.Proof("bubblewrap", ("read the home directory",), ("read the home directory: it was read",))

    monkeypatch.setattr("mlx_gemma.evaluate.sandbox.prove", holes)
    status, _, err = gemma(suite, "--model", "nano")
    assert status == 2
    assert "the sandbox has holes" in err
    assert not Path("runs").exists()
    assert gemma(suite, "--model", "nano", "--unsafe-exec", "--no-sampled")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--compare", "base"), "has no adapter to be compared with its base"),
        (("--compare", "nano"), "would be compared with itself"),
        (("--out", "{suite}/x"), "cannot be written"),
        (("--perplexity", "none.jsonl"), "none.jsonl"),
        (("{suite}",), "two suites are called 'small'"),
        (("--max-tokens", "0"), "--max-tokens"),
    ],
)
def test_refusals(gemma: Run, suite: Path, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = gemma(suite, "--model", "nano", *(a.format(suite=suite) for a in arguments))
    assert status == 2
    assert said in " ".join(err.split())
    assert out == ""


def test_a_folder_of_somebody_elses(gemma: Run, suite: Path) -> None:
    folder = Path("runs/eval/small/nano")
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    for more in ((), ("--fresh",)):
        status, _, err = gemma(suite, "--model", "nano", *more)
        assert status == 2
        assert "exists and holds no evaluation" in " ".join(err.split())
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_model_that_is_not_there_leaves_no_folder(gemma: Run, suite: Path) -> None:
    assert gemma(suite, "--model", "none/at/all")[0] == 2
    assert not Path("runs").exists()
