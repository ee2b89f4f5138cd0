"""A whole run on nano, through the public function and the files it leaves."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import mlx.core as mx
import pytest

import mlx_gemma
from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.recipe import Resolved, read_recipe
from mlx_gemma.training import loop, plan
from mlx_gemma.training.prepare import prepare

CODE = "```python\ndef double(x):\n    return 2 * x\n```"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": f"Write double number {i}."}, {"role": "assistant", "content": CODE}]}
        for i in range(12)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def resolved(rows: Path, *overrides: str) -> Resolved:
    path = rows.parent / "recipe.yaml"
    path.write_text(
        f"model: {{name: nano}}\ndata: {{train: {rows}, valid: {rows}}}\nfilter: {{near_duplicates: keep}}\n"
        f"train: {{steps: 4, lr: 1e-3, batch: 4}}\nvalidation: {{every: 2}}\noutput: {rows.parent / 'run'}\n"
    )
    return read_recipe(path, overrides)


def test_a_run_leaves_everything_behind(rows: Path) -> None:
    recipe = resolved(rows)
    seen: list[loop.Progress] = []
    folder = mlx_gemma.train(recipe, report=seen.append)
    names = {"adapters.safetensors", "adapter_config.json", "recipe.yaml", "metrics.jsonl", "loss.png", "audit.json"}
    assert {p.name for p in folder.iterdir()} == names | {run.MANIFEST}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["valid_loss"] is not None for line in lines] == [False, True, False, True]
    assert lines[-1]["valid_loss"] < lines[1]["valid_loss"]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    manifest = run.read_manifest(folder)
    assert manifest["rows"] == {"train": 12, "valid": 12}
    assert len(manifest["base"]["digest"]) == 64
    assert read_recipe(folder / "recipe.yaml").recipe == recipe.recipe
    assert mlx_gemma.load(str(folder)).adapter == folder


def test_the_same_seed_gives_the_same_weights(rows: Path) -> None:
    first = mlx_gemma.train(resolved(rows, "output=a", "adapter.dropout=0.1"))
    again = mlx_gemma.train(resolved(rows, "output=b", "adapter.dropout=0.1"))
    a, b = (mx.load(str(f / "adapters.safetensors")) for f in (first, again))
    assert all(mx.array_equal(a[k], b[k]) for k in a)


def test_checkpointing_changes_nothing(rows: Path) -> None:
    plain = mlx_gemma.train(resolved(rows, "output=plain"))
    again = mlx_gemma.train(resolved(rows, "output=again", "train.checkpointing=true"))
    a, b = (mx.load(str(f / "adapters.safetensors")) for f in (plain, again))
    assert max(mx.abs(a[k] - b[k]).max().item() for k in a) < 1e-6


def test_rows_without_anything_to_train_are_dropped_and_counted(rows: Path) -> None:
    # T10: a row whose answer was cut off has no target; trained as zero tokens it would be 0/0.
    long = "Explain this in one line. " * 20
    with rows.open("a") as file:
        file.write(json.dumps({"prompt": long, "completion": CODE}) + "\n")
        file.write(json.dumps({"prompt": "Say much.", "completion": "word and word, " * 60}) + "\n")
    ready = prepare(resolved(rows, "train.length=64").recipe)
    assert (ready.train.cut, ready.train.dropped, len(ready.train.examples)) == (2, 1, 13)
    planned = plan.plan(resolved(rows, "train.length=64"), ready)
    assert (planned.rows, planned.cut, planned.dropped) == (13, 2, 1)
    rows.write_text(json.dumps({"prompt": long, "completion": CODE}) + "\n")
    with pytest.raises(UserError, match="no row is left"):
        prepare(resolved(rows, "train.length=64").recipe)


def test_predicted_memory_is_near_what_is_measured(rows: Path) -> None:
    rows.write_text(rows.read_text().replace("Write double", "It is for a report. " * 12 + "Write double"))
    recipe = resolved(rows, "train.steps=2", "train.batch=8")
    ready = prepare(recipe.recipe)
    predicted = plan.plan(recipe, ready).peak_bytes
    folder = mlx_gemma.train(recipe, ready)
    measured = run.read_manifest(folder)["result"]["peak_memory_gb"] * 1e9
    assert 0.85 < predicted / measured < 1.15


def test_a_machine_too_small_is_told_before_training(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = resolved(rows)
    monkeypatch.setattr(plan.platform, "memory_bytes", lambda: 10**6)
    with pytest.raises(UserError, match=r"this machine has 0.0 GB; lower train.batch"):
        plan.check_memory(plan.plan(recipe, prepare(recipe.recipe)))


def test_a_finished_run_is_not_overwritten(rows: Path) -> None:
    mlx_gemma.train(resolved(rows, "train.steps=1"))
    with pytest.raises(UserError, match="holds a finished run"):
        mlx_gemma.train(resolved(rows, "train.steps=1"))


def test_a_foreign_folder_is_not_touched(rows: Path) -> None:
    with pytest.raises(UserError, match="is no run folder"):
        mlx_gemma.train(resolved(rows, f"output={rows.parent}"))
    with pytest.raises(UserError, match="is no run folder"):
        mlx_gemma.train(resolved(rows, f"output={rows}"))


def test_a_full_disk_and_an_interruption_leave_no_finished_run(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop, "plot_losses", full)
    with pytest.raises(UserError, match="the disk is full"):
        mlx_gemma.train(resolved(rows))
    with pytest.raises(UserError, match="no finished run here"):
        run.read_manifest(rows.parent / "run")
    monkeypatch.undo()

    def interrupted(progress: loop.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mlx_gemma.train(resolved(rows, f"output={rows.parent / 'run'}"), report=interrupted)
    assert not (rows.parent / "run" / run.MANIFEST).exists()
    mlx_gemma.train(resolved(rows, f"output={rows.parent / 'run'}", "train.steps=1"))  # the remains are written over


def test_a_disk_that_is_full_while_the_adapter_is_saved(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # mlx tells it as RuntimeError, not OSError.
    def full(*args: object, **kwargs: object) -> None:
        raise RuntimeError("[write] Unable to write 4096 bytes to file.")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(UserError, match="the adapter cannot be written"):
        mlx_gemma.train(resolved(rows, "train.steps=1"))
    assert not [p for p in (rows.parent / "run").iterdir() if "adapter" in p.name or "part" in p.name]


def test_an_interrupted_run_does_not_keep_the_weights_of_another(rows: Path) -> None:
    folder = mlx_gemma.train(resolved(rows, "train.steps=1"))
    (folder / run.MANIFEST).unlink()  # as if it had been killed just before

    def interrupted(progress: loop.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mlx_gemma.train(resolved(rows, "adapter.rank=8"), report=interrupted)
    assert not (folder / "adapters.safetensors").exists()


def test_a_run_that_diverges_fails_and_says_so(rows: Path) -> None:
    seen: list[loop.Progress] = []
    with pytest.raises(UserError, match="diverged"):
        mlx_gemma.train(resolved(rows, "train.lr=1e30", "train.warmup=0"), report=seen.append)
    assert any(p.skipped and "rows.jsonl:" in p.skipped for p in seen)
    lines = (rows.parent / "run" / "metrics.jsonl").read_text().splitlines()
    assert "NaN" not in "".join(lines)
    assert json.loads(lines[-1])["loss"] is None
