"""`mlx-gemma audit`: recipe, limits, exit status, what it writes; and `lora`, which refuses the same data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_gemma.cli import main


@pytest.fixture
def gemma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("COLUMNS", "150")

    def run(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mlx-gemma", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = [{"prompt": f"Print the number {i}.", "completion": f"```python\nprint({i})\n```"} for i in range(9)]
    rows[3]["completion"] = "```python\nprint 3\n```"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + "{\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {{name: nano}}\ndata: {{train: {tmp_path / 'rows.jsonl'}}}\ntrain: {{steps: 2, batch: 4}}\n"
        f"filter: {{near_duplicates: keep, malformed: reject, limits: {{python2: 0.05, broken: 0}}}}\n"
        f"output: {tmp_path / 'run'}\n"
    )
    return path


def test_a_recipe_is_data_policy_and_limits(gemma: Callable[..., tuple[int, str, str]], recipe: Path) -> None:
    status, out, err = gemma("audit", "--recipe", recipe)
    assert (status, err) == (1, "")
    assert "10 rows read: 8 kept, 2 rejected" in out  # near duplicates all, and kept by the policy
    assert "beyond a limit: python2: 1 of 10 rows (10.00%), the limit is 5.00%" in out
    assert "broken:" not in out
    assert "tokens of the kept rows: " in out
    assert "train.length 1,024 cuts 0 rows: 0 trained tokens (0.00%) are lost, 0 rows have none left" in out
    status, out, _ = gemma("audit", "--recipe", recipe)
    assert status == 1
    assert "from the cache" in out
    status, _, err = gemma("lora", recipe)
    assert status == 2
    assert "beyond a limit: python2: 1 of 10 rows" in err
    assert "raise filter.limits" in err
    assert gemma("lora", recipe, "--dry-run", "--set", "filter.limits={python2: 0.1}")[0] == 0


def test_a_recipe_counts_tokens(
    gemma: Callable[..., tuple[int, str, str]], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As training does: with the recipe's model, to its length."""
    text = recipe.read_text().replace("batch: 4", "batch: 4, length: 16")
    recipe.write_text(text)
    found = tmp_path / "audit.json"
    for _ in range(2):  # anew, and from the cache
        gemma("audit", "--recipe", recipe, "--json", found)
        told = json.loads(found.read_text())
        assert (told["lengths"]["length"], told["lengths"]["all"]["rows"]) == (16, told["kept"])
        assert told["lengths"]["all"]["cut"] == 8
        assert "⟦```python" in told["samples"][0]["text"]
        assert any("train.length 16 cuts 8 rows" in remark for remark in told["remarks"])
    recipe.write_text(text.replace("length: 16", "length: 4096"))
    gemma("audit", "--recipe", recipe, "--json", found)
    assert json.loads(found.read_text())["lengths"]["all"]["cut"] == 0
    recipe.write_text(text.replace("nano", "google/gemma-4-E2B-it"))
    status, out, _ = gemma("audit", "--recipe", recipe)
    assert status == 1  # the limits; the rest of the audit is there
    assert "lengths were not counted: google/gemma-4-E2B-it: its tokenizer cannot be fetched" in out


def test_what_it_writes(gemma: Callable[..., tuple[int, str, str]], recipe: Path, tmp_path: Path) -> None:
    data, clean, found = tmp_path / "rows.jsonl", tmp_path / "clean.jsonl", tmp_path / "audit.json"
    assert gemma("audit", data, "--write", clean, "--json", found)[0] == 0
    told = json.loads(found.read_text())
    assert told["read"] == 10 == told["kept"] + told["rejected"]
    assert told["kept"] == len(clean.read_text().splitlines())
    python2 = next(c for c in told["checks"] if c["check"] == "python2")
    assert (python2["rows"], python2["names"]) == (1, {"print statement": 1})
    assert python2["examples"] == [python2["example"]]
    assert told["rejected_rows"][-1]["where"] == f"{data}:10"
    before = clean.read_bytes()
    status, out, _ = gemma("audit", data, "--write", clean)
    assert "from the cache" in out
    assert (status, clean.read_bytes()) == (0, before)
    assert "from the cache" not in gemma("audit", data, "--fresh")[1]


def test_a_folder_for_the_report(gemma: Callable[..., tuple[int, str, str]], recipe: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "new" / "audited"
    assert gemma("audit", data, "--out", out)[0] == 0
    assert sorted(p.name for p in out.iterdir()) == ["audit.html", "audit.json"]
    assert json.loads((out / "audit.json").read_text())["read"] == 10
    assert "<html" in (out / "audit.html").read_text()
    assert gemma("audit", data, "--out", out, "--json", tmp_path / "mine.json")[0] == 0
    assert json.loads((tmp_path / "mine.json").read_text())["read"] == 10


def test_the_recipes_validation_is_compared(
    gemma: Callable[..., tuple[int, str, str]], recipe: Path, tmp_path: Path
) -> None:
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "held.jsonl").write_text(rows[0] + "\n")
    recipe.write_text(recipe.read_text().replace("data: {", f"data: {{valid: {tmp_path / 'held.jsonl'}, "))
    status, out, err = gemma("audit", "--recipe", recipe)
    assert (status, err) == (1, "")
    assert f"leakage: 1 rows of valid are in train too (1 exact); the first: {tmp_path}/held.jsonl:1" in " ".join(
        out.split()
    )
    status, _, err = gemma("audit", "--recipe", recipe, "--json", tmp_path / "held.jsonl")
    assert (status, "would be overwritten" in err) == (2, True)
    assert "leakage" not in gemma("audit", tmp_path / "rows.jsonl", "--recipe", recipe)[1]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["audit"], "give DATA"),
        (["audit", "--recipe", "none.yaml"], "no such recipe"),
        (["audit", "{data}", "--json", "{data}"], "would be overwritten, and is read; give --json another name"),
        (["audit", "{data}", "--write", "{data}"], "would be overwritten, and is read; give --write another name"),
        (["audit", "{data}", "--write", "."], "is a directory"),
        (["audit", "{data}", "--write", "new", "--out", "new"], "is a folder, and would be a file; give --write"),
        (["audit", "{data}", "--unsafe-exec"], "give --run too"),
        (["audit", "{data}", "--json", "none/audit.json"], "the folder of none/audit.json is not there"),
        (["audit", "{data}", "--json", "a.rejected.jsonl", "--write", "a.jsonl"], "two outputs"),
        (["audit", "{data}", "--workers", "0"], "x>=1"),
    ],
)
def test_refused(
    gemma: Callable[..., tuple[int, str, str]], recipe: Path, tmp_path: Path, args: list[str], says: str
) -> None:
    status, _, err = gemma(*(a.format(data=tmp_path / "rows.jsonl") for a in args))
    assert status == 2
    assert says in err
    assert len(err.splitlines()) == 1
