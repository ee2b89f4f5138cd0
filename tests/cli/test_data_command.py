"""`mlx-gemma data build` and `data card` as a user meets them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlx_gemma.cli import main


@pytest.fixture
def gemma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", "150")

    def run(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mlx-gemma", "data", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_build_card_and_check(gemma, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "mine"
    status, told, _ = gemma("build", "python3", "--out", out, "--rows", "50", "--pushback", "0.1")
    assert status == 0
    assert "train      50 rows; 5 pushback" in told
    assert gemma("card", out, "--check")[:2] == (0, "all files are as the card says\n")
    assert gemma("card", out, "--tokenizer", "nano")[:2] == (0, f"{out / 'README.md'}\n")
    card = (out / "README.md").read_text()
    assert "| split | rows | unreadable | tokens | supervised |" in card
    assert "mlx-gemma data build python3 --rows 50 --seed 0 --pushback 0.1" in card  # kept when written again
    (out / "valid.jsonl").write_text("{}\n")
    assert gemma("card", out, "--check")[:2] == (1, "changed: valid.jsonl\n")


def test_mistakes_are_one_line(gemma, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for args, line in (
        (("build", "python3", "--out", tmp_path), "exists; remove it"),
        (("build", "python4", "--out", tmp_path / "new"), "'python4' is not one of"),
        (("card", tmp_path), "no data here"),
        (("card", tmp_path / "none"), "does not exist"),
        (("card", tmp_path, "--check"), "no readable card"),
    ):
        status, out, err = gemma(*args)
        assert (status, out) == (2, ""), args
        assert err.startswith("mlx-gemma: ")
        assert line in err
        assert err.count("\n") == 1
