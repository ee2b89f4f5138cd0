"""A run that is stopped, killed or out of disk, and resumed, ends as one that never was: the same bits."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import children
import mlx.core as mx
import pytest
from children import PHASES, assert_same, lines, recipe, weights

from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.training import checkpoint, loop

SHORT = ("train.steps=6", "data.valid=null", "data.regression=null")  # where validation is not what is tested


class Stopped(Exception):
    """Raised by `stop_at`, as a bug in the caller's own report would be."""


def stop_at(step: int) -> Any:
    def report(progress: Any) -> None:
        if progress.step == step:
            raise Stopped

    return report


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the rows, an uninterrupted run in `whole`, and one that was stopped at update 5 in `stopped`.

    Beside them `whole-checkpoints`: every checkpoint that the uninterrupted run wrote.
    """
    folder = tmp_path_factory.mktemp("resume")

    def keep(progress: Any) -> None:
        for path in run.checkpoints(folder / "whole"):
            shutil.copytree(path, folder / "whole-checkpoints" / path.name, dirs_exist_ok=True)

    loop.train(recipe(folder, "whole"), report=keep)
    with pytest.raises(Stopped):
        loop.train(recipe(folder, "stopped"), report=stop_at(5))
    return folder


@pytest.fixture
def stopped(home: Path, tmp_path: Path) -> Path:
    """A copy of the run that was stopped at update 5; it holds checkpoints 2 and 4."""
    return Path(shutil.copytree(home / "stopped", tmp_path / "stopped"))


def resumed(home: Path, folder: Path, *overrides: str) -> Path:
    return loop.train(recipe(home, "whole", f"output={folder}", *overrides), resume=True)


def refusal(home: Path, folder: Path, *overrides: str, resume: bool = True) -> str:
    with pytest.raises(UserError) as e:
        loop.train(recipe(home, "whole", f"output={folder}", *overrides), resume=resume)
    line = str(e.value)
    assert "\n" not in line
    return line


def killed_at_random(home: Path, whole: Path, output: str, kills: int, *overrides: str) -> Counter[str]:
    """Start, kill after a random time, resume, and so on; a run that gets through is compared, and another begun."""
    delays = random.Random(7)
    resolved, log = recipe(home, output, *overrides), home / "log"
    folder = Path(resolved.recipe.output)
    started = time.perf_counter()
    child = children.start(recipe(home, f"{output}-timed", *overrides), log)
    child.join()
    took = time.perf_counter() - started
    assert child.exitcode == 0, log.read_text()
    fell: Counter[str] = Counter()
    while True:
        phase = children.context().Value("i", 0)
        child = children.start(resolved, log, phase=phase)
        if fell.total() < kills:
            child.join(delays.uniform(0, took / 3))
            child.kill()
        child.join()
        if child.exitcode == -signal.SIGKILL:
            written = [json.loads(line)["step"] for line in _whole_lines(folder)]
            assert written == list(range(len(written)))
            fell[PHASES[phase.value]] += 1
        else:
            assert child.exitcode == 0, log.read_text()
        if (folder / run.MANIFEST).exists():
            if child.exitcode:  # killed behind its last line of work
                run.forget(folder)
            assert_same(folder, whole)
            shutil.rmtree(folder)
            if fell.total() == kills:
                print(f"{output}: an uninterrupted run took {took:.1f} s; {kills} kills fell in {dict(fell)}")
                return fell


def _whole_lines(folder: Path) -> list[str]:
    path = folder / "metrics.jsonl"
    return [line for line in path.read_text().splitlines(True) if line.endswith("\n")] if path.exists() else []


def test_killed_at_20_random_points(home: Path) -> None:
    fell = killed_at_random(home, home / "whole", "killed", 20)
    assert len(fell) > 1


def test_killed_with_packed_rows(home: Path) -> None:
    overrides = ("train.layout=packed", "train.steps=8")
    whole = loop.train(recipe(home, "packed-whole", *overrides))
    killed_at_random(home, whole, "packed", 4, *overrides)


def test_killed_at_every_step_of_every_write(home: Path, tmp_path: Path) -> None:
    """From update 2 to the end at 3: best adapters, a checkpoint, the removal of the one before, the finished run."""
    overrides = ("train.steps=3", "train.accumulate=1", "validation.every=1", "checkpoint.every=1", "checkpoint.keep=1")
    overrides += ("data.regression=null", "adapter.targets=[q_proj]")
    saved = tmp_path / "saved"

    def keep(progress: Any) -> None:
        for path in run.checkpoints(tmp_path / "whole"):
            shutil.copytree(path, saved / path.name, dirs_exist_ok=True)

    whole = loop.train(recipe(home, "w", f"output={tmp_path / 'whole'}", *overrides), report=keep)
    assert [p.name for p in sorted(saved.iterdir())] == ["000001", "000002", "000003"]
    with pytest.raises(Stopped):
        loop.train(recipe(home, "w", f"output={tmp_path / 'begun'}", *overrides), report=stop_at(1))
    resolved, folder = recipe(home, "w", f"output={tmp_path / 'run'}", *overrides), tmp_path / "run"
    seen: Counter[str] = Counter()
    at = 0
    while True:
        at += 1
        if not folder.exists():
            shutil.copytree(tmp_path / "begun", folder)
        touches = children.context().Value("i", 0)
        child = children.start(resolved, tmp_path / "log", die_at=at, touches=touches)
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
        if (folder / run.MANIFEST).exists():
            seen["manifest"] += 1
            run.forget(folder)
            assert_same(folder, whole)
            shutil.rmtree(folder)
            continue
        newest = run.checkpoints(folder)[-1]
        seen[newest.name] += 1
        checkpoint.load(newest)
        for name in (checkpoint.ADAPTER, checkpoint.OPTIMIZER, run.BEST):
            assert weights(newest / name) == weights(saved / newest.name / name), (at, name)
        if newest.name > "000001":  # else the next start goes on from 1 once more, over what this one left
            if seen[newest.name] % 6 == 1:
                assert_same(loop.train(resolved, resume=True), whole)
            shutil.rmtree(folder)
    assert touches.value == at - 1
    assert_same(folder, whole)
    assert set(seen) == {"000001", "000002", "000003", "manifest"}
    print(f"{at - 1} kills while writing: {dict(seen)}")


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.lora_plus=4",),
        ("train.lora_plus=4", "train.optimizer=muon", "adapter.layers=2", "adapter.targets=[q_proj, o_proj]"),
        ("train.optimizer=adafactor",),
        ("train.optimizer=muon",),
        ("train.optimizer=lion", "train.schedule=linear"),
        ("train.optimizer=sgd", "adapter.layers=1", "adapter.targets=[q_proj]"),
        ("train.optimizer=adam", "adapter.kind=dora"),
        ("adapter.kind=full", "train.lr=1e-4", "train.checkpointing=true"),
    ],
    ids=" ".join,
)
def test_every_optimiser_goes_on_with_its_state(home: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    whole = loop.train(recipe(home, "w", *SHORT, *overrides, f"output={tmp_path / 'whole'}"))
    cut = recipe(home, "w", *SHORT, *overrides, f"output={tmp_path / 'cut'}")
    with pytest.raises(Stopped):
        loop.train(cut, report=stop_at(3))
    assert_same(loop.train(cut, resume=True), whole)


def test_early_stopping_and_the_best_adapter_are_remembered(home: Path, tmp_path: Path) -> None:
    overrides = ("validation.every=1", "validation.patience=3", "train.lr=0.05", "train.steps=40", "train.warmup=0")
    whole = loop.train(recipe(home, "w", *overrides, f"output={tmp_path / 'whole'}"))
    steps = lines(whole)[-1]["step"]
    assert steps < 40
    cut = recipe(home, "w", *overrides, f"output={tmp_path / 'cut'}")
    with pytest.raises(Stopped):
        loop.train(cut, report=stop_at(steps - 1))
    assert_same(loop.train(cut, resume=True), whole)


def test_a_best_adapter_of_after_the_checkpoint_is_not_taken_for_the_one_of_before(home: Path, stopped: Path) -> None:
    shutil.copyfile(stopped / "checkpoints/000002/adapter.safetensors", stopped / run.BEST)
    assert_same(resumed(home, stopped), home / "whole")
    shutil.rmtree(stopped)
    shutil.copytree(home / "stopped", stopped)
    (stopped / run.BEST).unlink()
    assert_same(resumed(home, stopped), home / "whole")


def test_output_and_tracker_may_change(home: Path, stopped: Path, tmp_path: Path) -> None:
    moved = stopped.rename(tmp_path / "moved")
    folder = resumed(home, moved, *(("report_to=tensorboard",) if find_spec("tensorboardX") else ()))
    assert weights(folder / "adapters.safetensors") == weights(home / "whole" / "adapters.safetensors")


def test_nothing_to_go_on_from_starts_anew(home: Path, tmp_path: Path) -> None:
    cut = recipe(home, "w", *SHORT, f"output={tmp_path / 'run'}")
    with pytest.raises(Stopped):
        loop.train(cut, report=stop_at(1))
    assert not run.checkpoints(tmp_path / "run")
    assert [line["step"] for line in lines(loop.train(cut, resume=True))] == list(range(7))


def test_resume_after_the_last_update_was_saved(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loop.train(recipe(home, "w", *SHORT, f"output={tmp_path / 'whole'}"))
    cut = recipe(home, "w", *SHORT, f"output={tmp_path / 'cut'}")

    def interrupt(progress: Any) -> None:
        if progress.step == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(UserError, match="stopped after update 6 of 6; add --resume"):
        loop.train(cut, report=interrupt)
    assert_same(loop.train(cut, resume=True), whole)


def test_refuses_another_recipe_data_or_base(home: Path, stopped: Path, tmp_path: Path, writable: Any) -> None:
    at = f"{stopped}/checkpoints/000004: "
    fix = "; give what the run began with, or another output to train anew"
    said = refusal(home, stopped, "train.lr=1e-3")
    assert said == f"{at}train.lr was 0.005, and is 0.001 now{fix}"
    said = refusal(home, stopped, "train.steps=30")
    assert said == f"{at}train.steps was 20, and is 30 now{fix}"
    train = home / "train.jsonl"
    rows = train.read_text()
    try:
        train.write_text(rows.replace("number 7.", "number 77."))
        assert refusal(home, stopped) == f"{at}the data (train) has changed since this checkpoint{fix}"
    finally:
        train.write_text(rows)
    said = refusal(home, stopped, f"model.name={writable('nano')}")
    assert said.startswith(f"{at}model.name was nano, and is ")
    assert_same(resumed(home, stopped), home / "whole")


def test_refuses_a_base_whose_file_is_another(home: Path, tmp_path: Path, writable: Any) -> None:
    base = writable("nano")
    cut = recipe(home, "w", *SHORT, f"output={tmp_path / 'cut'}", f"model.name={base}")
    with pytest.raises(Stopped):
        loop.train(cut, report=stop_at(3))
    arrays: Any = mx.load(str(base / "model.safetensors"))
    name = next(k for k in arrays if "q_proj" in k)
    mx.save_safetensors(str(base / "model.safetensors"), arrays | {name: arrays[name] * 1.01})
    with pytest.raises(UserError, match="the base has changed since this checkpoint"):
        loop.train(cut, resume=True)


@pytest.mark.parametrize("name", [checkpoint.ADAPTER, checkpoint.OPTIMIZER, checkpoint.STATE, run.BEST])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "empty"])
def test_refuses_a_damaged_checkpoint(home: Path, stopped: Path, name: str, damage: str) -> None:
    path = stopped / "checkpoints" / "000004" / name
    content = path.read_bytes()
    path.unlink()  # best.safetensors is a link
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "flipped":
        middle = len(content) // 2 if name != checkpoint.STATE else content.index(b'"failures": 0') + 12
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    said = refusal(home, stopped)
    assert said.startswith(f"{stopped}/checkpoints/000004: unreadable checkpoint: ")
    assert said.endswith("; remove this folder to go on from 000002")


def test_goes_on_from_the_checkpoint_before_or_starts_again(home: Path, stopped: Path) -> None:
    shutil.rmtree(stopped / "checkpoints" / "000004")
    (stopped / "checkpoints" / "000002" / checkpoint.ADAPTER).write_bytes(b"")
    assert refusal(home, stopped).endswith("; remove this folder and start again")
    shutil.copytree(home / "stopped/checkpoints/000002", stopped / "checkpoints/000002", dirs_exist_ok=True)
    assert_same(resumed(home, stopped), home / "whole")


@pytest.mark.parametrize("text", ["", "{", '{"step": 0}\n', None])
def test_refuses_damaged_metrics(home: Path, stopped: Path, text: str | None) -> None:
    path = stopped / "metrics.jsonl"
    path.unlink() if text is None else path.write_text(text)
    said = refusal(home, stopped)
    assert said.startswith(f"{path}: unreadable metrics: ")
    assert said.endswith("; remove the run folder and start again")


def test_refuses_a_finished_run_and_an_unfinished_one_without_resume(home: Path, stopped: Path) -> None:
    said = refusal(home, home / "whole")
    assert said == f"{home}/whole: holds a finished run; choose another output (--set output=…) or remove it"
    said = refusal(home, stopped, resume=False)
    assert said == (
        f"{stopped}: holds an unfinished run, saved at update 4; add --resume to go on with it, or remove the folder"
    )


class Failing:
    """A function that fails from a call on."""

    def __init__(self, function: Any, at: int, error: Exception) -> None:
        self.function, self.at, self.error, self.calls = function, at, error, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls >= self.at:
            raise self.error
        return self.function(*args, **kwargs)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [(mx, "save_safetensors", RuntimeError("[write] Unable to write 300 bytes to file.")), (os, "fsync", FULL)],
)
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_full_disk(
    home: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: Exception, at: int
) -> None:
    whole = {
        p.name: [weights(p / n) for n in (checkpoint.ADAPTER, checkpoint.OPTIMIZER)] for p in run.checkpoints(stopped)
    }
    with monkeypatch.context() as patch:
        patch.setattr(module, name, Failing(getattr(module, name), at, error))
        said = refusal(home, stopped)
    assert "free space" in said
    for path in run.checkpoints(stopped):
        checkpoint.load(path)
        if path.name in whole:
            assert [weights(path / n) for n in (checkpoint.ADAPTER, checkpoint.OPTIMIZER)] == whole[path.name]
    if at == 3:
        assert_same(resumed(home, stopped), home / "whole")


def test_a_disk_that_takes_no_more(home: Path, stopped: Path, tmp_path: Path) -> None:
    """The real thing: the optimiser's state, twice the adapter, no longer fits."""
    size = (stopped / "checkpoints" / "000004" / checkpoint.OPTIMIZER).stat().st_size
    child = children.start(recipe(home, "w", f"output={stopped}"), tmp_path / "log", largest_file=size * 3 // 4)
    child.join()
    said = (tmp_path / "log").read_text()
    assert child.exitcode == 2, said
    assert said.startswith(f"{stopped}: update 6 cannot be saved: [write] Unable to write ")
    assert said.endswith("; free space and add --resume to go on from the checkpoint before\n")
    assert sorted(p.name for p in (stopped / "checkpoints").iterdir()) == ["000002", "000004"]
    assert_same(resumed(home, stopped), home / "whole")


def test_ctrl_c_on_the_command_line(home: Path, tmp_path: Path) -> None:
    recipe(home, "whole")
    folder = tmp_path / "run"
    command = [Path(sys.executable).parent / "mlx-gemma", "lora", home / "whole.yaml", "--set", f"output={folder}"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        deadline = time.monotonic() + 60
        while len(_whole_lines(folder)) < 4 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130
    step = len(lines(folder)) - 1
    at_once, at_last = said.strip().splitlines()
    assert at_once == "stopping after this update, which is saved; Ctrl-C again stops at once"
    assert at_last == f"mlx-gemma: {folder}: stopped after update {step} of 20; add --resume to go on"
    assert int(run.checkpoints(folder)[-1].name) == step
    again = subprocess.run(
        [*command, "--resume"], stderr=subprocess.PIPE, text=True, env=environment, timeout=120, check=False
    )
    assert again.returncode == 0, again.stderr
    assert_same(folder, home / "whole")
