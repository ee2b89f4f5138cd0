"""The model card is one that the hub reads, and says what the run's own files say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tiny_gemma4 import random_adapter

import mlx_gemma
from mlx_gemma import run
from mlx_gemma.interop.export import export
from mlx_gemma.recipe import read_recipe


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    rows = [{"prompt": f"Write f{i}.", "completion": f"```python\ndef f{i}():\n    return {i}\n```"} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        "model: {name: nano}\ndata: {train: rows.jsonl, valid: rows.jsonl, regression: rows.jsonl}\n"
        "filter: {near_duplicates: keep}\ntrain: {steps: 3, lr: 1e-2, batch: 4}\noutput: run\n"
    )
    return mlx_gemma.train(read_recipe(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize(("to", "library"), [("hf", "transformers"), ("peft", "peft"), ("mlx", "mlx")])
def test_a_run_s_card(trained: Path, to: str, library: str) -> None:
    done = export(trained, to)
    assert done.rows == 4  # of the run's own validation set
    card = ModelCard.load(done.path / "README.md")
    assert card.data.library_name == library
    assert card.data.license == "apache-2.0"  # as nano's own card says
    manifest, text = run.read_manifest(trained), card.text
    assert manifest["data"]["train"] in text
    assert f"{manifest['result']['valid_loss_before']:.4f} -> {manifest['result']['valid_loss']:.4f}" in text
    assert (trained / run.RECIPE).read_text() in text
    assert re.search(r"mean \d\.\de[-+]\d\d", text)
    assert str(trained.parent.resolve()) not in text.replace((trained / run.RECIPE).read_text(), "")


def test_the_licence_of_the_base_is_kept(writable: object, tmp_path: Path) -> None:
    base = writable("e2b")  # type: ignore[operator]
    (base / "README.md").write_text(
        "---\nlicense: gemma\nlicense_link: https://ai.google.dev/gemma/terms\n---\n# Gemma\n"
    )
    random_adapter(base, tmp_path / "run")
    data = ModelCard.load(export(tmp_path / "run", "hf").path / "README.md").data
    assert (data.license, data.license_link) == ("gemma", "https://ai.google.dev/gemma/terms")
