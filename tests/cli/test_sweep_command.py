"""`mlx-gemma sweep` with the real trainer: a table, a file, and a status."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mlx_gemma.cli import main

ROW = {"prompt": "Write one.", "completion": "```python\ndef one():\n    return 1\n```"}


def gemma(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(sys, "argv", ["mlx-gemma", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_sweep_on_nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps(ROW | {"prompt": f"Write one, number {i}."}) + "\n" for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    (tmp_path / "recipe.yaml").write_text(
        "model: {name: nano}\ndata: {train: rows.jsonl, valid: rows.jsonl}\nfilter: {near_duplicates: keep}\n"
        "train: {steps: 2, batch: 4}\noutput: runs\n"
    )
    # nano has seven layers: the second run is refused by the trainer, and the table is printed all the same
    words = ["sweep", "recipe.yaml", "--set", "adapter.layers=all,9"]
    assert gemma(monkeypatch, *words) == 1
    shown = capsys.readouterr()
    assert "1/2 adapter.layers=all: starts" in shown.err
    line = next(line for line in shown.out.splitlines() if line.startswith("* "))
    assert " GB " in line
    assert "adapter.layers is 9, the model has 7" in shown.out
    assert "time is that of updates, without loading and validation" in shown.out
    assert "finished in" not in shown.out  # stdout is the table's
    assert gemma(monkeypatch, *words, "--json") == 1
    again = capsys.readouterr()
    assert "1/2 adapter.layers=all: finished before" in again.err
    rows = json.loads(again.out)["rows"]
    manifest = json.loads((tmp_path / "runs-sweep" / "adapter.layers=all" / "manifest.json").read_text())
    assert rows[0]["valid_loss"] == manifest["result"]["valid_loss"] > 0
    assert rows[0]["peak_memory_gb"] > 0
    assert (tmp_path / "runs-sweep" / "adapter.layers=all" / "adapters.safetensors").is_file()


def test_a_sweep_needs_values(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert gemma(monkeypatch, "sweep", "recipe.yaml") == 2
    assert capsys.readouterr().err.startswith("mlx-gemma: Missing option '--set'")
