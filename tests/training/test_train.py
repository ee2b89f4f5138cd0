"""A whole run on nano, through the public function and the files it leaves."""

from __future__ import annotations

import errno
import gc
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import mlx_gemma
from mlx_gemma import platform, run
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import load
from mlx_gemma.recipe import Resolved, read_recipe
from mlx_gemma.training import batches, loop, optimiser, plan, trainer
from mlx_gemma.training.loss import summed_loss
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


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights_of(folder: Path) -> dict[str, mx.array]:
    return dict(mx.load(str(folder / "adapters.safetensors")))


def same(a: dict[str, mx.array], b: dict[str, mx.array]) -> bool:
    return a.keys() == b.keys() and all(mx.array_equal(a[k], b[k]) for k in a)


def test_a_run_leaves_everything_behind(rows: Path) -> None:
    recipe = resolved(rows)
    seen: list[loop.Progress] = []
    folder = mlx_gemma.train(recipe, report=seen.append)
    names = {"adapters.safetensors", "adapter_config.json", "recipe.yaml", "metrics.jsonl", "loss.png", "audit.json"}
    assert {p.name for p in folder.iterdir()} == names | {run.MANIFEST, run.SNAPSHOTS}
    lines = lines_of(folder)
    assert [line["step"] for line in lines] == [p.step for p in seen] == [0, 1, 2, 3, 4]
    assert [line["valid_loss"] is not None for line in lines] == [True, False, True, False, True]
    assert lines[-1]["valid_loss"] < lines[2]["valid_loss"] < lines[0]["valid_loss"]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    manifest = run.read_manifest(folder)
    assert manifest["rows"] == {"train": 12, "valid": 12}
    assert len(manifest["base"]["digest"]) == 64
    assert read_recipe(folder / "recipe.yaml").recipe == recipe.recipe
    assert mlx_gemma.load(str(folder)).adapter == folder


def test_line_0_is_the_base_s_validation_loss(rows: Path) -> None:
    folder = mlx_gemma.train(resolved(rows, "train.steps=1", "validation.every=1"))
    first, second = lines_of(folder)
    gemma, users = load("nano"), [json.loads(line)["messages"] for line in rows.read_text().splitlines()]
    examples = [gemma.template.example(messages) for messages in users]
    batch = batches.collate(examples, [[i] for i in range(len(examples))])
    wanted = summed_loss(gemma.text, batch, gradient=False).item() / batch.targets
    assert (first["step"], first["loss"], first["targets"], first["rate"]) == (0, None, 0, 0.0)
    assert first["valid_loss"] == pytest.approx(wanted, rel=1e-5)
    assert first["seconds"] == 0
    assert second["loss"] is not None
    result = run.read_manifest(folder)["result"]
    assert result["valid_loss_before"] == first["valid_loss"]
    assert result["loss"] == pytest.approx(second["loss"])  # line 0 is not of the training loss


def test_without_validation_there_is_none(rows: Path) -> None:
    folder = mlx_gemma.train(resolved(rows, "data.valid=null", "train.steps=2"))
    assert [line["valid_loss"] for line in lines_of(folder)] == [None] * 3
    result = run.read_manifest(folder)["result"]
    assert (result["kept"], result["valid_loss"], result["valid_loss_before"]) == (2, None, None)
    assert result["regression"] is None


def scripted(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Validation losses as given, one after another; other splits are measured."""
    measure, left = trainer.mean_loss, iter(losses)

    def mean_loss(ready: Any, split: Any, *rest: Any) -> float:
        return next(left) if split is ready.valid else measure(ready, split, *rest)

    monkeypatch.setattr(trainer, "mean_loss", mean_loss)


CONSTANT = ("validation.every=1", "train.schedule=constant", "train.warmup=0")  # so that updates know no end


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_adapter_is_kept(rows: Path, monkeypatch: pytest.MonkeyPatch, keep: str) -> None:
    extra = [*CONSTANT, f"validation.keep={keep}", f"data.regression={rows}", "adapter.dropout=0.1"]
    with monkeypatch.context() as patch:
        scripted(patch, [0.5, 3.0, 1.5, 2.0, 1.5, 1.6])  # before the first update there is no adapter to keep
        folder = mlx_gemma.train(resolved(rows, *extra, "train.steps=5", "output=whole"))
    at = 2 if keep == "best" else 5
    stopped = mlx_gemma.train(resolved(rows, *extra, f"train.steps={at}", "validation.keep=last", "output=stopped"))
    assert same(weights_of(folder), weights_of(stopped))
    found, wanted = (run.read_manifest(f)["result"] for f in (folder, stopped))
    assert found["kept"] == at
    assert found["steps"] == 5
    assert found["valid_loss"] == (1.5 if keep == "best" else 1.6)
    assert found["valid_loss_before"] == 0.5
    assert found["regression"] == wanted["regression"]  # after: of the adapter that is kept


def test_validation_that_really_rises(rows: Path) -> None:
    """Nothing scripted: at a rate far too high the adapter of the lowest measured loss is on disk."""
    folder = mlx_gemma.train(resolved(rows, *CONSTANT, "train.lr=0.03", "train.steps=8", "train.batch=2"))
    measured = {line["step"]: line["valid_loss"] for line in lines_of(folder)[1:]}
    best = min(measured, key=lambda step: measured[step])
    assert best < 8, measured
    result = run.read_manifest(folder)["result"]
    assert (result["kept"], result["valid_loss"]) == (best, measured[best])
    gemma = mlx_gemma.load(str(folder))
    examples = [gemma.template.example(json.loads(line)["messages"]) for line in rows.read_text().splitlines()]
    batch = batches.collate(examples, [[i] for i in range(len(examples))])
    assert summed_loss(gemma.text, batch, gradient=False).item() / batch.targets == pytest.approx(measured[best], 1e-4)


def test_patience_ends_a_run(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [9.0, 3.0, 2.0, 2.5, 1.0, 1.0, 1.1, 0.5, 0.4])
    folder = mlx_gemma.train(resolved(rows, *CONSTANT, "validation.patience=2", "train.steps=8"))
    assert [line["step"] for line in lines_of(folder)] == list(range(7))  # an equal loss is no lower one
    result = run.read_manifest(folder)["result"]
    assert (result["steps"], result["kept"], result["valid_loss"]) == (6, 4, 1.0)


def test_what_must_not_be_lost_is_measured_before_and_after(rows: Path) -> None:
    other = rows.with_name("other.jsonl")
    other.write_text(json.dumps({"prompt": "Say hello in Python 2.", "completion": "print 'hello'"}) + "\n")
    folder = mlx_gemma.train(resolved(rows, f"data.regression={other}"))
    found = run.read_manifest(folder)["result"]["regression"]
    for name, model in (("before", load("nano")), ("after", mlx_gemma.load(str(folder)))):
        example = model.template.example(
            [
                {"role": "user", "content": "Say hello in Python 2."},
                {"role": "assistant", "content": "print 'hello'"},
            ]
        )
        loss = summed_loss(model.text, batches.collate([example], [[0]]), gradient=False).item() / example.targets
        assert found[name] == pytest.approx(loss, rel=1e-4)
    assert found["before"] != found["after"]


def test_the_manifest_holds_a_diagnosis(rows: Path) -> None:
    folder = mlx_gemma.train(resolved(rows))
    found = run.read_manifest(folder)["result"]["diagnosis"]
    assert found["kind"] == "too short to tell"
    assert found["sentence"] == "4 updates are too few to tell learning from noise"
    assert found["advice"]
    folder = mlx_gemma.train(resolved(rows, "train.steps=24", "validation.every=6", "output=longer"))
    assert run.read_manifest(folder)["result"]["diagnosis"]["kind"] == "still learning"


@pytest.mark.parametrize("extra", [(), ("train.layout=packed", "train.length=256", "train.batch=1")])
def test_the_same_seed_gives_the_same_weights(rows: Path, extra: tuple[str, ...]) -> None:
    first, again = (mlx_gemma.train(resolved(rows, f"output={o}", "adapter.dropout=0.1", *extra)) for o in "ab")
    assert same(weights_of(first), weights_of(again))
    other = mlx_gemma.train(resolved(rows, "output=c", "adapter.dropout=0.1", "train.seed=1", *extra))
    assert not same(weights_of(first), weights_of(other))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_checkpointing_changes_nothing(rows: Path, dropout: float) -> None:
    # T36: with dropout, too: the recomputation draws the masks that the loss was taken with.
    extra = f"adapter.dropout={dropout}"
    plain = mlx_gemma.train(resolved(rows, "output=plain", extra))
    again = mlx_gemma.train(resolved(rows, "output=again", extra, "train.checkpointing=true"))
    a, b = weights_of(plain), weights_of(again)
    assert max(mx.abs(a[k] - b[k]).max().item() for k in a) < 1e-6


def test_a_last_partial_window_is_trained(rows: Path) -> None:
    # T11: 12 rows are 3 forward passes of 4, so 2 updates of 2; mlx-lm leaves out the second.
    extra = ("train.epochs=1", "train.accumulate=2", *CONSTANT)
    folder = mlx_gemma.train(resolved(rows, *extra))
    first, last = lines_of(folder)[1:]
    assert first["targets"] + last["targets"] == sum(e.targets for e in prepare(resolved(rows).recipe).train.examples)
    assert first["targets"] != last["targets"]
    stopped = mlx_gemma.train(resolved(rows, "train.steps=1", *extra[1:], "output=stopped"))
    assert not same(weights_of(stopped), weights_of(folder))


@pytest.mark.parametrize(("kind", "optimizer"), [("dora", "adafactor"), ("full", "sgd"), ("lora", "muon")])
def test_kinds_and_optimisers_of_a_recipe(rows: Path, kind: str, optimizer: str) -> None:
    folder = mlx_gemma.train(
        resolved(rows, f"adapter.kind={kind}", f"train.optimizer={optimizer}", "train.layout=packed", "train.batch=1")
    )
    lines = lines_of(folder)
    assert lines[-1]["valid_loss"] < lines[0]["valid_loss"]
    assert mlx_gemma.load(str(folder)).adapter == folder


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
    gc.collect()
    others = mx.get_active_memory()  # models that tests before this one have left in the process
    ready = prepare(recipe.recipe)
    predicted = plan.plan(recipe, ready).peak_bytes
    folder = mlx_gemma.train(recipe, ready)
    measured = run.read_manifest(folder)["result"]["peak_memory_gb"] * 1e9 - others
    assert 0.85 < predicted / measured < 1.15


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

    monkeypatch.setattr(trainer, "plot_losses", full)
    with pytest.raises(UserError, match="the disk is full"):
        mlx_gemma.train(resolved(rows))
    with pytest.raises(UserError, match="no finished run here"):
        run.read_manifest(rows.parent / "run")
    monkeypatch.undo()
    seen: list[loop.Progress] = []
    folder = mlx_gemma.train(resolved(rows), report=seen.append, resume=True)  # the last update was saved
    assert not seen
    whole = mlx_gemma.train(resolved(rows, f"output={rows.parent / 'whole'}"))
    assert same(weights_of(folder), weights_of(whole))
    (folder / run.MANIFEST).unlink()

    def interrupted(progress: loop.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mlx_gemma.train(resolved(rows, f"output={rows.parent / 'run'}"), report=interrupted)
    assert not (rows.parent / "run" / run.MANIFEST).exists()
    mlx_gemma.train(resolved(rows, f"output={rows.parent / 'run'}", "train.steps=1"))  # the remains are written over


def test_a_disk_that_is_full_while_the_adapter_is_saved(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # mlx tells it as RuntimeError, not OSError.
    plain, fits = mx.save_safetensors, 0

    def full(*args: Any, **kwargs: Any) -> None:
        nonlocal fits
        fits -= 1
        if fits < 0:
            raise RuntimeError("[write] Unable to write 4096 bytes to file.")
        plain(*args, **kwargs)

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(UserError, match=r"update 1 cannot be saved: .*; free space"):
        mlx_gemma.train(resolved(rows, "train.steps=1", "validation.every=1"))
    fits = 3  # the snapshot, and the last checkpoint's two
    with pytest.raises(UserError, match=r"the adapter cannot be written.*--resume"):
        mlx_gemma.train(resolved(rows, "train.steps=1", "validation.keep=last"))
    assert not [p for p in (rows.parent / "run").iterdir() if "adapter" in p.name or "part" in p.name]
    fits = 99
    mlx_gemma.train(resolved(rows, "train.steps=1", "validation.keep=last"), resume=True)


def test_an_interrupted_run_does_not_keep_the_weights_of_another(rows: Path) -> None:
    folder = mlx_gemma.train(resolved(rows, "train.steps=1"))
    (folder / run.MANIFEST).unlink()  # as if it had been killed just before

    def interrupted(progress: loop.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mlx_gemma.train(resolved(rows, "adapter.rank=8"), report=interrupted)
    assert not (folder / "adapters.safetensors").exists()


def test_a_run_that_diverges_fails_and_says_so(rows: Path) -> None:
    with pytest.raises(UserError, match=r"the loss of the 12 rows from .*rows.jsonl:1 on is not finite; .*train.lr"):
        mlx_gemma.train(resolved(rows, "train.lr=1e30", "train.warmup=0"))
    assert not (rows.parent / "run" / run.MANIFEST).exists()


def broken_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """The gradients of these updates, counted from 0, are NaN."""
    plain = optimiser.Updater.gradient

    def gradient(self: Any, batch: Any, number: int = 0) -> Any:
        value, grads = plain(self, batch, number)
        return (value * float("nan") if self.step in steps else value), grads

    monkeypatch.setattr(optimiser.Updater, "gradient", gradient)


def test_a_last_update_that_is_skipped_costs_nothing_else(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_at(monkeypatch, 3)
    seen: list[loop.Progress] = []
    folder = mlx_gemma.train(resolved(rows, "validation.keep=last"), report=seen.append)
    assert "rows.jsonl:" in (seen[-1].skipped or "")
    result = run.read_manifest(folder)["result"]
    assert (result["steps"], result["skipped"]) == (4, 1)
    text = (folder / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert json.loads(text.splitlines()[-1])["loss"] is None


def test_a_run_without_one_finite_update_fails(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_at(monkeypatch, 0, 1)
    with pytest.raises(UserError, match=r"no update had a finite loss and gradient; the last held .*rows.jsonl:\d+"):
        mlx_gemma.train(resolved(rows, "train.steps=2"))
    assert not (rows.parent / "run" / run.MANIFEST).exists()


def test_a_kill_before_the_recipe_was_written_locks_nothing(rows: Path) -> None:
    folder = rows.parent / "run"
    folder.mkdir()
    (folder / f"{run.PART}recipe.yaml").write_text("half")
    mlx_gemma.train(resolved(rows, "train.steps=1"), resume=True)
    assert not list(folder.glob(f"{run.PART}*"))


def test_what_does_not_fit_is_refused_with_the_levers_left(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = resolved(rows, "train.checkpointing=true")
    monkeypatch.setattr(platform, "memory_bytes", lambda: 20_000_000)  # nano's weights are 11 MB
    with pytest.raises(UserError, match=r"needs about 0.\d GB, and MLX may use 0.0 GB here; set (.*)") as refused:
        mlx_gemma.train(recipe)
    assert not (rows.parent / "run").exists()
    assert refused.value.fix == (
        "set model.quantize_embeddings=affine4, model.quantize=affine4, train.batch=1 with train.accumulate=4"
    )
    monkeypatch.setattr(platform, "memory_bytes", lambda: 10_000_000)
    with pytest.raises(
        UserError, match=r"nano: its weights take 0.0 GB, and MLX may use 0.0 GB here; train with model"
    ):
        mlx_gemma.train(recipe)
    load("nano", quantize="affine8")  # fits
