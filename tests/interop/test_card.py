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
from mlx_gemma.gemma4.checkpoint import find
from mlx_gemma.interop.card import card
from mlx_gemma.interop.compare import Difference
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


def test_a_damaged_card_of_the_base(writable: object, tmp_path: Path) -> None:
    base = writable("e2b-text")  # type: ignore[operator]
    (base / "README.md").write_text("---\nlicense: [gemma\n---\n")
    assert ModelCard(card(find(str(base)), tmp_path, "hf", GAP, 0.2)).data.license == "other"


GAP = Difference(1e-3, 1e-4, 1e-6, 1.0, 2.0)
FORMS = [
    ("hf", None, "transformers", "finetune"),
    ("peft", None, "peft", "adapter"),
    ("gguf", None, "gguf", "finetune"),
    ("gguf-lora", None, "gguf", "adapter"),
    ("mlx", None, "mlx", "finetune"),
    ("mlx", "affine4", "mlx", "quantized"),
]


@pytest.mark.parametrize(("to", "quantize", "library", "relation"), FORMS)
def test_every_form_has_a_card(tmp_path: Path, to: str, quantize: str | None, library: str, relation: str) -> None:
    found = ModelCard(card(find("nano"), tmp_path, to, GAP, 0.2, quantize=quantize))
    assert (found.data.library_name, found.data.base_model_relation) == (library, relation)
    assert f"compared with base and adapter, over the same tokens: {GAP}." in found.text
    assert "is left" not in found.text
    assert "trained on a quantised base" not in found.text
    assert "## Evaluation" not in found.text


def test_what_quantising_did(tmp_path: Path) -> None:
    text = card(find("nano"), tmp_path, "mlx", GAP, 0.2, quantize="affine4", survived=0.873, moved=0.05)
    assert "merged, for mlx-lm; quantised (affine4)." in text
    assert "87.3% of that effect is left in the quantised weights." in text
    assert (
        "trained on a quantised base and exported onto the full-precision one, which moves the mean logit by 5.0e-02"
        in text
    )


def test_results_of_eval(tmp_path: Path) -> None:
    """As `mlx-gemma eval` keeps them; another file of that name is none."""
    good, old, worse = (
        {"verdicts": [], "bad": False},
        *({"verdicts": v, "bad": True} for v in (["python2"], ["python2", "raises"])),
    )
    for side, rows in (("nano", [old, worse, good]), ("run", [good, good, good])):
        folder = tmp_path / "eval" / "tasks" / side
        folder.mkdir(parents=True)
        (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, other in (("rows", '{"messages": []}\n'), ("cut", '{"side": '), ("none", ""), ("list", "[1]\n")):
        folder = tmp_path / "eval" / f"other-{name}" / "side"
        folder.mkdir(parents=True)
        (folder / "results.jsonl").write_text(other)
    text = card(find("nano"), tmp_path, "peft", GAP, 0.2)
    table = text.split("## Evaluation")[1].split("## Verification")[0]
    assert table.split("`tasks`")[1].strip().splitlines() == [
        "| answers that are | nano, n = 3 | run, n = 3 |",
        "|---|---:|---:|",
        "| bad | 2 | 0 |",
        "| python2 | 2 | 0 |",
        "| raises | 1 | 0 |",
    ]
    assert "other-" not in text
