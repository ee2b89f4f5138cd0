"""`mlx-gemma import` as a user meets it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from their_adapters import DECODER, mlx_lm_adapter, peft_adapter

from mlx_gemma.cli import main
from mlx_gemma.gemma4.checkpoint import NANO


class Done(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def gemma(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: str | Path) -> Done:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["mlx-gemma", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capfd.readouterr())

    return run


def test_from_peft_to_an_answer(gemma: Any) -> None:
    """Imported, verified, asked, exported; nothing but what it says on either stream."""
    towers = r"|.*vision_tower\..*up_proj(\.linear)?"
    peft_adapter(NANO, Path("theirs"), target_modules=DECODER + towers, r=2, use_rslora=True)
    done = gemma("import", "theirs", "--from", "peft", "--out", "mine")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("mine: lora on 41 modules, rank 2, scale 4.24264, ")
    assert lines[-1].startswith("verified against peft: logit difference max ")
    assert "the adapter's effect: mean" in lines[-1]
    assert done.err == ""
    assert gemma("generate", "mine", "Say one.", "--max-tokens", "2").status == 0
    assert json.loads(Path("mine/adapter_config.json").read_text())["rslora"]


def test_from_mlx_lm(gemma: Any) -> None:
    mlx_lm_adapter(NANO, Path("adapters"), layers=2)
    done = gemma("import", "adapters", "--from", "mlx-lm", "--base", "nano")
    assert done.status == 0, done.err
    assert "runs/adapters: lora on" in done.out
    assert "verified against mlx-lm" in done.out
    again = gemma("import", "adapters", "--from", "mlx-lm", "--base", "nano")
    assert (again.status, again.err.count("\n")) == (2, 1)
    assert "runs/adapters: exists; remove it" in again.err


def test_mistakes(gemma: Any) -> None:
    peft_adapter(NANO, Path("theirs"), trainable_token_indices=[5])
    for args, word in (
        (["import", "theirs", "--from", "peft"], "trainable_token_indices is set"),
        (["import", "theirs", "--from", "gguf"], "gguf"),
        (["import", "gone", "--from", "peft"], "no such folder"),
    ):
        done = gemma(*args)
        assert done.status == 2
        assert word in done.err
        assert done.err.count("\n") == 1
    assert not Path("runs").exists()
