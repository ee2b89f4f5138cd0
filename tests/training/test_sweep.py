"""Sweeps: the grid, what is run again and what is not, failures, and the table's file. The trainer is a stand-in."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma.errors import UserError
from mlx_gemma.recipe.grid import LONGEST, folder_name, grid, split_values
from mlx_gemma.training import sweep
from mlx_gemma.training.sweep import Row, best

# Writes a run folder as `mlx-gemma lora` does; rank 13 fails, rank 17 dies, rank 19 is interrupted the first time.
TRAINER = """
import json, os, sys
from pathlib import Path
from mlx_gemma import run
from mlx_gemma.recipe import read_recipe
words = sys.argv[2:]
sets = [b for a, b in zip(words, words[1:]) if a == "--set"]
resolved = read_recipe(Path(sys.argv[1]), sets)
folder, rank = Path(resolved.recipe.output), resolved.recipe.adapter.rank
with open("calls", "a") as calls:
    print(rank, resolved.recipe.train.lr, *(["resumed"] if "--resume" in words else []), file=calls)
print("a line of progress")
if rank == 13:
    sys.exit("mlx-gemma: the disk is full; free space")
folder.mkdir(parents=True, exist_ok=True)
keys = resolved.recipe.model_dump(mode="json").items()
text = run.HEADER + "\\n" + "".join(f"{k}: {json.dumps(v)}\\n" for k, v in keys)
(folder / run.RECIPE).write_text(text)
if rank == 17 or (rank == 19 and "--resume" not in words):
    os.kill(os.getpid(), 9)
losses = [0.4, 0.5 + 1 / rank, 0.6 + 1 / rank]  # the untrained model's is the lowest; the last update's is kept
(folder / "metrics.jsonl").write_text("".join(json.dumps({"valid_loss": v}) + "\\n" for v in losses))
result = {"valid_loss": losses[-1], "peak_memory_gb": 0.25, "seconds": 3.5, "regression": {"before": 1.0, "after": 1.1}}
result["diagnosis"] = {"kind": "converged"}
run.write_json(folder / run.MANIFEST, {"result": result})
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {name: nano}\ndata: {train: rows.jsonl}\ntrain: {epochs: 1}\noutput: run/\n")
    return path


@pytest.fixture(autouse=True)
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    monkeypatch.setattr(sweep, "LORA", [sys.executable, str(script)])


def swept(recipe: Path, *sets: str) -> list[Row]:
    root, trials = grid(recipe, sets)
    return sweep.sweep(root, trials, lambda line: None)


def calls() -> list[str]:
    return Path("calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("8,16, 32", ["8", "16", "32"]),
        ("[q_proj, k_proj],[v_proj]", ["[q_proj, k_proj]", "[v_proj]"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ("{a: [1, 2]},null", ["{a: [1, 2]}", "null"]),
        ("it's,mine", ["it's", "mine"]),
        ("all", ["all"]),
    ],
)
def test_commas_split_values_and_nothing_inside_a_value(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def test_the_grid_is_the_product_and_each_run_has_its_folder(recipe: Path) -> None:
    root, trials = grid(recipe, ["adapter.rank=8,16", "train.lr=1e-4,2e-4"])
    assert root == Path("run-sweep")  # a run of the recipe itself has its own folder
    names = [t.folder.name for t in trials]
    assert names[:2] == ["adapter.rank=8,train.lr=1e-4", "adapter.rank=8,train.lr=2e-4"]
    assert [(t.resolved.recipe.adapter.rank, t.resolved.recipe.train.lr) for t in trials] == [
        (8, 1e-4),
        (8, 2e-4),
        (16, 1e-4),
        (16, 2e-4),
    ]
    root, (trial,) = grid(recipe, ["output=elsewhere", "adapter.targets=[q_proj, v_proj]"])
    assert (root, trial.resolved.recipe.adapter.targets) == (Path("elsewhere"), ("q_proj", "v_proj"))


def test_folder_names_are_short_plain_and_different() -> None:
    paths = [folder_name({"data.train": f"/some/where/{i}/../x y.jsonl"}) for i in range(2)]
    assert paths[0] != paths[1]
    assert all("/" not in p and " " not in p for p in paths)
    assert len(folder_name({"data.train": "x" * 300})) <= LONGEST


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["adapter.rank"], "adapter.rank has no values"),
        (["adapter.rank=8,,16"], "an empty one"),
        (["adapter.rank=8,8"], "or one twice"),
        (["adapter.rank=8", "adapter.rank=16"], "adapter.rank is given twice"),
        (["output=a,b"], "a sweep has one output"),
        (["adapter.rank=8,sixteen"], "adapter.rank"),  # before the first of them is trained
        (["adapter.ranks=8,16"], "did you mean adapter.rank"),
    ],
)
def test_a_wrong_value_is_told_before_anything_runs(recipe: Path, sets: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        swept(recipe, *sets)
    assert not Path("run-sweep").exists()


def test_a_run_folder_is_not_swept_into(recipe: Path) -> None:
    swept(recipe, "adapter.rank=8")
    with pytest.raises(UserError, match="holds a run, and a sweep's folder"):
        grid(recipe, ["output=run-sweep/adapter.rank=8"])


def test_rows_hold_what_the_runs_measured_and_the_best_is_marked(recipe: Path) -> None:
    rows = swept(recipe, "adapter.rank=8,16")
    assert rows[1] == Row(
        {"adapter.rank": "16"},
        "run-sweep/adapter.rank=16",
        valid_loss=0.6625,  # of the adapter that was kept, not the lowest that was measured
        regression={"before": 1.0, "after": 1.1},
        peak_memory_gb=0.25,
        seconds=3.5,
        diagnosis="converged",
    )
    assert best(rows) == 1
    written: dict[str, Any] = json.loads(Path("run-sweep/sweep.json").read_text())
    assert written["best"] == 1
    assert [row["valid_loss"] for row in written["rows"]] == [0.725, 0.6625]
    assert Path("run-sweep/adapter.rank=8.log").read_text() == "a line of progress\n"


def test_what_is_finished_is_not_run_again_and_the_rest_goes_on(recipe: Path) -> None:
    swept(recipe, "adapter.rank=8")
    rows = swept(recipe, "adapter.rank=8,19")
    assert rows[1].error == "killed by signal 9, see run-sweep/adapter.rank=19.log"
    rows = swept(recipe, "adapter.rank=8,19")
    assert [row.error for row in rows] == [None, None]
    assert calls() == ["8 0.0002", "19 0.0002", "19 0.0002 resumed"]


def test_a_finished_run_of_another_recipe_is_a_row_with_its_error(recipe: Path) -> None:
    swept(recipe, "adapter.rank=8")
    recipe.write_text(recipe.read_text().replace("epochs: 1", "epochs: 2"))
    rows = swept(recipe, "adapter.rank=8,16")
    assert "holds a finished run of another recipe; remove it" in str(rows[0].error)
    assert rows[1].error is None
    assert len(calls()) == 2


def test_a_failing_run_is_a_row_and_the_sweep_goes_on(recipe: Path) -> None:
    rows = swept(recipe, "adapter.rank=13,17,8")
    assert [row.error for row in rows] == [
        "the disk is full; free space",
        "killed by signal 9, see run-sweep/adapter.rank=17.log",
        None,
    ]
    assert best(rows) == 2


@pytest.mark.parametrize("text", ["{", "{}", '{"result": {}}', '{"result": null}'])
def test_a_damaged_manifest_is_told(recipe: Path, text: str) -> None:
    swept(recipe, "adapter.rank=8")
    Path("run-sweep/adapter.rank=8/manifest.json").write_text(text)
    assert "unreadable manifest" in str(swept(recipe, "adapter.rank=8")[0].error)


# Says that it is ready, counts its Ctrl-C, and takes longer to save than subprocess.run would wait.
SAVES = """
import signal, sys, time
pressed = []
signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
print("ready", flush=True)
for _ in range(2000):
    time.sleep(0 if pressed else 0.01)
time.sleep(1)
print(f"saved, pressed {len(pressed)}", flush=True)
sys.exit("mlx-gemma: stopped after update 3 of 9; add --resume to go on")
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, lambda *_: print("pressed", flush=True))
print("ready", flush=True)
time.sleep(60)
"""
# A sweep as the console script runs it; with a terminal on its stdin, that is made the one its Ctrl-C comes from.
PARENT = """
import fcntl, os, sys, termios
if os.isatty(0):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from mlx_gemma.cli import main
from mlx_gemma.training import sweep
sweep.LORA = [sys.executable, "child.py"]
sys.argv = ["mlx-gemma", "sweep", "recipe.yaml", "--set", "adapter.rank=8,16"]
main()
"""


class Started:
    """A sweep in a session of its own, with `child` as the trainer, that has come to the first run."""

    def __init__(self, child: str, stdin: int) -> None:
        Path("child.py").write_text(child)
        self.parent = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.log = Path("run-sweep/adapter.rank=8.log")
        self.wait_for("ready")

    def wait_for(self, text: str) -> None:
        for _ in range(3000):
            if self.log.exists() and text in self.log.read_text():
                return
            time.sleep(0.01)
        self.parent.kill()
        pytest.fail(f"no {text!r} in {self.log}")

    def ended(self) -> tuple[int, str]:
        """Status and the last line of stderr."""
        _, err = self.parent.communicate(timeout=30)
        return self.parent.returncode, err.splitlines()[-1]


STOPPED = (130, "mlx-gemma: sweep stopped; the same command goes on")


def test_ctrl_c_in_a_terminal_lets_the_run_save(recipe: Path) -> None:
    ours, theirs = pty.openpty()
    sweeping = Started(SAVES, theirs)
    os.write(ours, b"\x03")  # the terminal's: both processes get it
    assert sweeping.ended() == STOPPED
    assert "saved, pressed 1\n" in sweeping.log.read_text()  # a second one would have stopped it at once
    assert not Path("run-sweep/adapter.rank=16.log").exists()
    os.close(ours)
    os.close(theirs)


def test_an_interrupt_of_the_sweep_alone_is_passed_on_once(recipe: Path) -> None:
    sweeping = Started(SAVES, subprocess.DEVNULL)
    sweeping.parent.send_signal(signal.SIGINT)
    assert sweeping.ended() == STOPPED
    assert "saved, pressed 1\n" in sweeping.log.read_text()


def test_a_second_ctrl_c_stops_at_once(recipe: Path) -> None:
    sweeping = Started(STUBBORN, subprocess.DEVNULL)
    sweeping.parent.send_signal(signal.SIGINT)
    sweeping.wait_for("pressed")
    sweeping.parent.send_signal(signal.SIGINT)
    assert sweeping.ended() == STOPPED  # within 30 s, where the child sleeps for 60


def test_without_validation_no_row_is_the_best() -> None:
    assert best([Row({}, "a"), Row({}, "b", error="x")]) is None
