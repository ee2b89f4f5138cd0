"""Sweeps: the grid, what is run again and what is not, failures, and the table's file. The trainer is a stand-in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma.errors import UserError
from mlx_gemma.training import sweep
from mlx_gemma.training.sweep import Row, best, folder_name, grid, split_values

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
losses = [None, 0.5 + 1 / rank, 0.6 + 1 / rank]
(folder / "metrics.jsonl").write_text("".join(json.dumps({"valid_loss": v}) + "\\n" for v in losses))
result = {"peak_memory_gb": 0.25, "seconds": 3.5, "regression": {"before": 1.0, "after": 1.1}}
result["diagnosis"] = {"kind": "converged"}
run.write_json(folder / run.MANIFEST, {"result": result})
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {name: nano}\ndata: {train: rows.jsonl}\ntrain: {epochs: 1}\noutput: sweep\n")
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
    assert root == Path("sweep")
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
    assert len(folder_name({"data.train": "x" * 300})) <= sweep.LONGEST


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
    assert not Path("sweep").exists()


def test_a_run_folder_is_not_swept_into(recipe: Path) -> None:
    swept(recipe, "adapter.rank=8")
    with pytest.raises(UserError, match="holds a run, and a sweep's folder"):
        grid(recipe, ["output=sweep/adapter.rank=8"])


def test_rows_hold_what_the_runs_measured_and_the_best_is_marked(recipe: Path) -> None:
    rows = swept(recipe, "adapter.rank=8,16")
    assert rows[1] == Row(
        {"adapter.rank": "16"},
        "sweep/adapter.rank=16",
        valid_loss=0.5625,  # the lowest, not the last
        regression={"before": 1.0, "after": 1.1},
        peak_memory_gb=0.25,
        seconds=3.5,
        diagnosis="converged",
    )
    assert best(rows) == 1
    written: dict[str, Any] = json.loads(Path("sweep/sweep.json").read_text())
    assert written["best"] == 1
    assert [row["valid_loss"] for row in written["rows"]] == [0.625, 0.5625]
    assert Path("sweep/adapter.rank=8.log").read_text() == "a line of progress\n"


def test_what_is_finished_is_not_run_again_and_the_rest_goes_on(recipe: Path) -> None:
    swept(recipe, "adapter.rank=8")
    rows = swept(recipe, "adapter.rank=8,19")
    assert rows[1].error == "killed by signal 9, see sweep/adapter.rank=19.log"
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
        "killed by signal 9, see sweep/adapter.rank=17.log",
        None,
    ]
    assert best(rows) == 2


def test_damaged_metrics_are_told(recipe: Path) -> None:
    swept(recipe, "adapter.rank=8")
    Path("sweep/adapter.rank=8/metrics.jsonl").write_text("{")
    assert "unreadable metrics" in str(swept(recipe, "adapter.rank=8")[0].error)


def test_without_validation_no_row_is_the_best() -> None:
    assert best([Row({}, "a"), Row({}, "b", error="x")]) is None
