"""Data and names of files do nothing to the terminal that shows them."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from mlx_gemma.cli.progress import print_examples
from mlx_gemma.errors import UserError, visible_line
from mlx_gemma.recipe import read_recipe
from mlx_gemma.training.prepare import prepare


def test_errors_are_one_visible_line() -> None:
    said = str(UserError("has \x1b[31mred\x07", where="a\nb\u202ec\udc80.jsonl:1", fix="look\u200b twice"))
    assert said == r"a b\u202ec\udc80.jsonl:1: has \x1b[31mred\x07; look\u200b twice"
    assert visible_line("Gänse 鵞 🪿  ⟦x⟧") == "Gänse 鵞 🪿 ⟦x⟧"


def test_examples_of_a_dry_run_are_visible(tmp_path: Path) -> None:
    rows = [{"prompt": "Say \x1b[2Jit \u202e[bold]now.", "completion": "So\x07 é 鵞."}]
    (tmp_path / "[red]rows.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{name: nano}}\ndata: {{train: '{tmp_path}/[red]rows.jsonl'}}\ntrain: {{steps: 1}}\noutput: x\n"
    )
    prepared = prepare(read_recipe(tmp_path / "recipe.yaml").recipe)
    shown = io.StringIO()
    print_examples(Console(file=shown, width=500, highlight=False), prepared)
    text = shown.getvalue()
    assert r"Say \x1b[2Jit \u202e[bold]now." in text
    assert r"⟦So\x07 é 鵞.<turn|>⟧" in text  # tokens of one character each, or of its bytes
    assert "[red]rows.jsonl:1" in text
    assert not set(text) & set("\x1b\x07\u202e")
