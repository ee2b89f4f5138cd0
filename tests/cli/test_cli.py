"""The command line as a user meets it: fast help, one-line errors, exit statuses, real runs on nano."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlx_gemma.cli import COMMANDS, main
from mlx_gemma.gemma4.checkpoint import NANO

ROW = {"prompt": "Write one.", "completion": "```python\ndef one():\n    return 1\n```"}
ITEM = {"id": "one", "prompt": "Write one().", "tests": {"check": ["one() == 1"]}}


class Done(NamedTuple):
    status: int
    out: str
    err: str


Gemma = Callable[..., Done]


@pytest.fixture
def gemma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Gemma:
    """Run a command in this process, as the console script does."""
    monkeypatch.setenv("COLUMNS", "150")

    def run(*args: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["mlx-gemma", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(ROW | {"prompt": f"Write one, number {i}."}) + "\n" for i in range(8)))
    return path


@pytest.fixture
def recipe(tmp_path: Path, rows: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {{name: nano}}\ndata: {{train: {rows}}}\nfilter: {{near_duplicates: keep}}\n"
        f"train: {{steps: 2, batch: 4}}\noutput: {tmp_path / 'run'}\n"
    )
    return path


def test_help_is_quick_and_imports_no_mlx() -> None:
    started = time.perf_counter()
    code = "import sys; sys.argv = ['mlx-gemma', '--help']\nfrom mlx_gemma.cli import main\n"
    code += (
        "try: main()\nexcept SystemExit: pass\nprint([m for m in sys.modules if m.split('.')[0] in ('mlx', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(name in done.stdout for name in COMMANDS)
    assert time.perf_counter() - started < 3  # 0.1 s alone; the tests share two cores


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(gemma: Gemma, name: str) -> None:
    done = gemma(name, "--help")
    assert done.status == 0
    assert done.out.startswith("Usage: ")


def test_train_generate_trace_eval_export_bench(gemma: Gemma, recipe: Path, rows: Path, tmp_path: Path) -> None:
    done = gemma("lora", recipe, "--set", f"data.regression={rows}")
    assert done.status == 0, done.err
    assert "regression rows (data.regression): loss " in done.out
    run = tmp_path / "run"
    assert gemma("generate", run, "Write one.", "--max-tokens", "5").out.strip()
    assert "◀" in gemma("trace", run, "Write one.", "--max-tokens", "5", "--html", tmp_path / "t.html").out
    assert (tmp_path / "t.html").read_text().lower().startswith("<!doctype html>")
    suite = tmp_path / "suite.jsonl"
    suite.write_text(json.dumps(ITEM) + "\n")
    done = gemma("eval", suite, "--model", run, "--compare", "base", "--max-tokens", "8", "--out", tmp_path / "eval")
    assert "points" in done.out
    assert (tmp_path / "eval/suite/run/report.html").exists()
    done = gemma("export", run)
    assert done.status == 0, done.err
    assert (run / "hf" / "model.safetensors").exists()
    done = gemma("bench", run, "--prompts", suite, "--max-tokens", "8", "--save", tmp_path / "rows.out")
    assert "mlx-lm" in done.out
    assert json.loads((tmp_path / "rows.out").read_text())["queries"] == 1


def test_a_dry_run_trains_nothing_and_shows_what_would_be(gemma: Gemma, recipe: Path, tmp_path: Path) -> None:
    done = gemma("lora", recipe, "--dry-run", "--set", "adapter.rank=4")
    assert done.status == 0
    for text in ("adapter.rank", "--set", "41 modules", "8 to train", "p50", "0 rows cut", "predicted", "⟦"):
        assert text in done.out, text
    places = [done.out.index(text) for text in ("model.name", "⟦", "updates", "peak memory", "consider")]
    assert places == sorted(places)  # what is decided on stands last
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_what_does_not_fit(gemma: Gemma, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_gemma import platform

    monkeypatch.setattr(platform, "memory_bytes", lambda: 20_000_000)  # holds the weights, and no update
    done = gemma("lora", recipe, "--dry-run")
    assert done.status == 2
    assert "peak memory" in done.out  # after it has told all
    assert done.err.startswith("mlx-gemma: needs about 0.")


def test_keys_are_a_grid_of_100_columns(gemma: Gemma) -> None:
    from mlx_gemma.recipe import known_keys

    head, *lines = gemma("lora", "--keys").out.splitlines()
    assert head.split() == ["key", "default", "give", "consequence"]
    assert max(map(len, lines)) <= 100
    width = max(map(len, known_keys()))
    assert [line[:width].strip() for line in lines if line[:width].strip()] == list(known_keys())  # others are indented
    told = " ".join(" ".join(lines).split())
    assert "train.layout padded packed or padded packed: examples" in told
    assert "data.train (required) text a JSONL" in told


def test_keys_need_neither_mlx_nor_other_machines() -> None:
    code = "import sys; sys.argv = ['mlx-gemma', 'lora', '--keys']\nfrom mlx_gemma.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\nprint([m for m in sys.modules if m.split('.')[0] == 'mlx'])"
    env = os.environ | {"MLX_RANK": "1", "MLX_HOSTFILE": "none.json"}  # as mlx.launch would start it
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert "train.accumulate" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_audit_writes_kept_and_rejected_rows(gemma: Gemma, rows: Path, tmp_path: Path) -> None:
    with rows.open("a") as file:
        file.write(json.dumps({"prompt": "Print.", "completion": "```python\nprint 'x'\n```"}) + "\nnot json\n")
    done = gemma("audit", rows, "--write", tmp_path / "clean.jsonl")
    assert done.status == 0
    assert "10 rows read" in done.out
    kept = len((tmp_path / "clean.jsonl").read_text().splitlines())
    rejected = [json.loads(r) for r in (tmp_path / "clean.rejected.jsonl").read_text().splitlines()]
    assert kept + len(rejected) == 10
    assert {"python2", "malformed"} <= {reason["check"] for r in rejected for reason in r["reasons"]}


def test_audit_shows_and_writes_any_data(gemma: Gemma) -> None:
    """No text is markup, in names as in rows, and every value of a Parquet file or of odd JSON can be written."""
    folder = Path("[bold]")
    folder.mkdir()
    rows = folder / "rows.jsonl"
    surrogates = json.dumps(ROW | {"\ud800": "\udfff", "x": ["huge"]}).replace('"huge"', "1e999")
    rows.write_text(json.dumps({"[/a] [red]": 1}) + "\n" + surrogates + "\n")
    done = gemma("audit", rows, "--write", folder / "c.jsonl")
    assert done.status == 0, done.err
    assert "[/a] [red]" in done.out
    assert "kept rows in [bold]/c.jsonl" in done.out
    written = json.loads((folder / "c.jsonl").read_text(), parse_constant=pytest.fail)
    assert (written["\ud800"], written["x"]) == ("\udfff", [None])

    odd = {"at": datetime(2026, 1, 2), "raw": b"x", "sum": Decimal("1.5"), "score": math.nan}
    pq.write_table(pa.Table.from_pylist([ROW | odd]), folder / "rows.parquet")
    done = gemma("audit", folder / "rows.parquet", "--write", folder / "c.jsonl")
    assert done.status == 0, done.err
    written = json.loads((folder / "c.jsonl").read_text(), parse_constant=pytest.fail)
    assert {k: written[k] for k in odd} == {"at": "2026-01-02 00:00:00", "raw": "b'x'", "sum": "1.5", "score": None}


def test_doctor(gemma: Gemma) -> None:
    done = gemma("doctor")
    assert done.status in (0, 1)  # 1 where OpenBLAS is not installed
    assert "backend" in done.out
    assert "GFLOP/s" in done.out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["lora"], "give a recipe"),
        (["lora", "none.yaml"], "no such recipe"),
        (["lora", "{recipe}", "--set", "train.stepz=3"], "did you mean train.steps?"),
        (["lora", "{recipe}", "--set", "data.train=none.jsonl"], "none.jsonl"),
        (["lora", "{recipe}", "--set", "data.train={bad}"], "{bad}"),
        (["lora", "{recipe}", "--set", "model.name=none/at/all"], "no such folder, and not a hub id"),
        (["lora", "{recipe}", "--set", "model.name=google/gemma-4-E2B-it"], "cannot be reached"),
        (["lora", "{recipe}", "--set", "adapter.layers=9"], "the model has 7"),
        (["lora", "{recipe}", "--set", "adapter.layers=3"], "matches no module"),
        (["lora", "{recipe}", "--set", "output={rows}"], "is no run folder"),
        (["lora", "{recipe}", "--set", "output=/proc/none/run"], "/proc/none/run"),
        (["lora", "{recipe}", "--set", "filter.contamination=[none.jsonl]"], "none.jsonl"),
        (["generate", "nano"], "Missing argument"),
        (["generate", "nano", ""], "the prompt is empty"),
        (["generate", "nano", "a<turn|>b"], "control token"),
        (["generate", "nano", "hi", "--temperature", "-1"], "out of range"),
        (["generate", "nano", "hi", "--temperature", "warm"], "not a valid float"),
        (["generate", "nano", "hi", "--top-p", "2"], "out of range"),
        (["generate", "nano", "hi", "--seed", "-1"], "out of range"),
        (["generate", "nano", "hi", "--seed", "18446744073709551616"], "out of range"),
        (["generate", "Write a function that sums a list. " * 20, "nano"], "not a hub id"),
        (["generate", "runs/nanno", "hi"], "no such folder, and"),
        (["generate", "nano", "hi", "--max-tokens", "0"], "x>=1"),
        (["generate", "nano", "hi", "--adapter", "{tmp}"], "no adapters.safetensors"),
        (["generate", "{tmp}", "hi"], "no config.json"),
        (["generate", "{rows}", "hi"], "a file, not a model folder"),
        (["generate", "{other}", "hi"], "is not Gemma 4"),
        (["generate", "{broken}", "hi"], "unreadable config.json"),
        (["generate", "{empty}", "hi"], "no model*.safetensors"),
        (["trace", "nano", "hi", "--top", "0"], "out of range"),
        (["trace", "nano", "hi", "--top", "101"], "out of range"),
        (["trace", "nano", "hi", "--uncertain", "0"], "x>=1"),
        (["trace", "nano", "hi", "--html", "{tmp}/none/x.html"], "the folder of {tmp}/none/x.html is not there"),
        (["bench", "nano", "--save", "{tmp}/none/x"], "the folder of {tmp}/none/x is not there"),
        (["bench", "nano", "--save", "{tmp}"], "is a directory"),
        (["eval", "{suite}", "--model", "none/at/all", "--adapter", "{tmp}"], "no adapters.safetensors"),
        (["audit", "{rows}", "--write", "{rows}"], "would be overwritten"),
        (["audit", "{tmp}/a.rejected.jsonl", "--write", "{tmp}/a.jsonl"], "would be overwritten"),
        (["audit", "{rows}", "--write", "{suite}", "--against", "{suite}"], "would be overwritten"),
        (["audit", "x" * 300], "no such file or folder"),
        (["audit", "none.jsonl"], "none.jsonl"),
        (["audit", "{tmp}/void.jsonl"], "void.jsonl"),
        (["audit", "{rows}", "--against", "none.jsonl"], "none.jsonl"),
        (["eval", "none.jsonl", "--model", "nano"], "cannot be read"),
        (["eval", "{rows}", "--model", "nano"], "{rows}:1"),
        (["eval", "{tmp}/void.jsonl", "--model", "nano"], "holds no rows"),
        (["eval", "{rows}"], "Missing option '--model'"),
        (["export", "{tmp}"], "no adapters.safetensors"),
        (["export", "none"], "none"),
        (["bench", "nano", "--prompts", "none.jsonl"], "cannot be read"),
        (["bench", "nano", "--prompts", "{tmp}/void.jsonl"], "holds no items"),
        (["bench", "nano", "--prompts", "{bad}"], "{bad}:1"),
        (["train"], "No such command"),
        (["lora", "{recipe}", "--sett", "a=1"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    gemma: Gemma, recipe: Path, rows: Path, tmp_path: Path, args: list[str], says: str
) -> None:
    (tmp_path / "void.jsonl").write_text("")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{not json\n")
    (tmp_path / "a.rejected.jsonl").write_text(json.dumps(ROW) + "\n")
    suite = tmp_path / "suite.jsonl"
    suite.write_text(json.dumps(ITEM) + "\n")
    folders = {}
    for name, text in (
        ("other", '{"model_type": "llama"}'),
        ("broken", "{"),
        ("empty", (NANO / "config.json").read_text()),
    ):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "config.json").write_text(text)
    names = {"recipe": recipe, "rows": rows, "tmp": tmp_path, "bad": bad, "suite": suite, **folders}
    done = gemma(*(a.format(**names) for a in args))
    assert done.status == 2, done
    assert says.format(**names) in done.err
    assert done.err.startswith("mlx-gemma: ")
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_ctrl_c_is_130(gemma: Gemma, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_gemma.training import optimiser

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(optimiser.Updater, "__call__", interrupted)
    done = gemma("lora", recipe)
    assert (done.status, done.err.strip()) == (130, "mlx-gemma: interrupted; what is on disk is whole")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_ctrl_c_whose_update_was_saved_is_130_too(
    gemma: Gemma, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_gemma.training import optimiser

    update = optimiser.Updater.__call__

    def pressed(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return update(*args)

    monkeypatch.setattr(optimiser.Updater, "__call__", pressed)
    done = gemma("lora", recipe)
    says = f"mlx-gemma: {tmp_path / 'run'}: stopped after update 1 of 2; add --resume to go on"
    assert (done.status, done.err.strip()) == (130, says)


def test_options_of_sampling_say_what_turns_them_off(gemma: Gemma) -> None:
    told = " ".join(gemma("generate", "--help").out.split())
    for text in ("--top-p P Sample", "1: off. [default: 1.0]", "--top-k K Sample", "0: off. [default: 0]"):
        assert text in told, text
    assert "Seed of the sampling." in told
