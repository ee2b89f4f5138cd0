"""`mlx-gemma data build`, `data split` and `data card` as a user meets them."""

from __future__ import annotations

import json
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


def test_split_keeps_groups_whole(gemma, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = [{"prompt": f"Ask {i}.", "completion": f"Say {i}.", "family": f"f{i % 20}"} for i in range(200)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    status, told, err = gemma("split", data, "--out", tmp_path / "a", "--shares", "0.7", "0.2", "0.1")
    assert (status, err) == (0, "")
    assert " ".join(told.split()).startswith("train 140 rows (70.0%) valid 40 rows (20.0%) test 20 rows (10.0%)")
    families, said = {}, []
    for split in ("train", "valid", "test"):
        read = [json.loads(line) for line in (tmp_path / "a" / f"{split}.jsonl").read_text().splitlines()]
        families[split] = {r["family"] for r in read}
        said += [r["messages"][1]["content"] for r in read]
    assert sorted(said) == sorted(r["completion"] for r in rows)  # every row once
    assert not families["train"] & families["valid"] | families["train"] & families["test"]
    assert not families["valid"] & families["test"]
    for out, seed in (("b", "0"), ("c", "1")):
        assert gemma("split", data, "--out", tmp_path / out, "--shares", "0.7", "0.2", "0.1", "--seed", seed)[0] == 0
    a, b, c = ((tmp_path / out / "test.jsonl").read_bytes() for out in "abc")
    assert a == b != c
    assert gemma("split", data, "--out", tmp_path / "two", "--shares", "0.9", "0.1", "0")[0] == 0
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["train.jsonl", "valid.jsonl"]


def test_split_is_whole_or_not_at_all(gemma, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = tmp_path / "in" / "train.jsonl"
    data.parent.mkdir()
    data.write_text('{"prompt": "Ask.", "completion": "Say.", "family": "a"}\n' * 3)
    before = data.read_bytes()
    for args, line in (
        (("split", data, "--out", data.parent), "exists; remove it"),
        (("split", data.parent, "--out", tmp_path / "x"), "1 group by 'family' of 3 rows: valid stays empty"),
        (("split", data, "--by", "author", "--out", tmp_path / "x"), "train.jsonl:1: has no 'author' to be grouped by"),
        (
            ("split", data, "--shares", "1", "1", "1", "--out", tmp_path / "x"),
            "shares of 1, 1, 1 are none; give three that add up to 1",
        ),
        (("split", tmp_path / "none", "--out", tmp_path / "x"), "no such file or folder"),
    ):
        status, out, err = gemma(*args)
        assert (status, out) == (2, ""), args
        assert line in err
        assert err.count("\n") == 1
    data.write_bytes(before + b"{\n")
    status, _, err = gemma("split", data, "--by", "prompts", "--out", tmp_path / "x")
    assert (status, "train.jsonl:4: " in err) == (2, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


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
