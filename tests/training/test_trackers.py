"""Trackers: the shape of the calls on fakes, the real ones where they are installed, and failures that stop nothing."""

from __future__ import annotations

import math
import sqlite3
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlx_gemma.errors import UserError
from mlx_gemma.training import trackers
from mlx_gemma.training.trackers import PACKAGES, tracker

CONFIG = {"train.lr": 1e-4, "adapter.rank": 8}
Calls = list[tuple[Any, ...]]


class Recorder:
    """A module, a run or a writer: whatever is called on it is written down."""

    def __init__(self, calls: Calls, fails: str = "") -> None:
        self._calls, self._fails = calls, fails

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: object, **kwargs: object) -> Recorder:
            self._calls.append((name, args, kwargs))
            if name == self._fails:
                raise ConnectionError("network\nis unreachable")
            return self

        return call


def fake(monkeypatch: pytest.MonkeyPatch, name: str, fails: str = "") -> Calls:
    calls: Calls = []
    monkeypatch.setitem(sys.modules, PACKAGES[name], Recorder(calls, fails))  # type: ignore[arg-type]
    return calls


def test_trackio_and_wandb_get_name_config_and_finite_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, extra in (("trackio", {"embed": False}), ("wandb", {"dir": str(tmp_path)})):
        calls = fake(monkeypatch, name)
        track = tracker(name, "project", tmp_path, CONFIG)
        track.log(7, {"loss": 0.5, "valid_loss": None, "norm": math.nan, "rate": math.inf})
        track.finish()
        opening = {"project": "project", "name": tmp_path.name, "config": CONFIG} | extra
        assert calls == [("init", (), opening), ("log", ({"loss": 0.5},), {"step": 7}), ("finish", (), {})]


def test_tensorboard_forgets_what_an_interrupted_attempt_logged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = fake(monkeypatch, "tensorboard")
    track = tracker("tensorboard", "project", tmp_path, CONFIG)
    assert not calls  # nothing is written before the first update
    track.log(41, {"loss": 0.5})
    track.log(42, {"loss": 0.4})
    track.finish()
    assert calls[0] == ("SummaryWriter", (str(tmp_path / "tensorboard"),), {"purge_step": 41, "filename_suffix": ".41"})
    assert calls[1][0] == "add_text"
    assert "train.lr: 0.0001" in calls[1][1][1]
    scalars = [("add_scalar", ("loss", 0.5, 41), {}), ("add_scalar", ("loss", 0.4, 42), {})]
    assert calls[2:] == [*scalars, ("close", (), {})]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_told_with_its_pip_command(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)  # type: ignore[arg-type]  # as if it were not installed
    says = rf"report_to: {name}: {PACKAGES[name]} .*; pip install {PACKAGES[name]}, or set report_to=none"
    with pytest.raises(UserError, match=says):
        trackers.require(name)
    with pytest.raises(UserError, match=says):
        tracker(name, "project", tmp_path, CONFIG)
    assert not list(tmp_path.iterdir())


def test_a_broken_package_is_told_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "trackio.py").write_text("raise ImportError('needs another numpy')")
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="trackio cannot be imported: needs another numpy; pip install trackio"):
        trackers.require("trackio")


def test_one_that_does_not_start_is_told_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake(monkeypatch, "wandb", fails="init")
    with pytest.raises(UserError, match="wandb does not start: network; run `wandb login` or set WANDB_MODE=offline"):
        tracker("wandb", "project", tmp_path, CONFIG)


@pytest.mark.parametrize("fails", ["log", "finish"])
def test_a_failure_in_mid_run_is_one_warning(
    fails: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake(monkeypatch, "wandb", fails=fails)
    track = tracker("wandb", "project", tmp_path, CONFIG)
    for step in range(3):
        track.log(step, {"loss": 1.0})
    track.finish()
    track.finish()
    assert sum(call[0] == fails for call in calls) == 1
    told = "wandb failed and gets nothing more, the training goes on: ConnectionError: network is unreachable"
    assert capsys.readouterr().err == f"mlx-gemma: {told}\n"


def test_none_is_a_tracker_that_does_nothing(tmp_path: Path) -> None:
    track = tracker("none", "project", tmp_path, CONFIG)
    track.log(1, {"loss": 1.0})
    track.finish()
    assert not list(tmp_path.iterdir())


def test_the_names_are_those_of_the_recipe() -> None:
    from mlx_gemma.recipe import Recipe

    assert set(Recipe.model_json_schema()["properties"]["report_to"]["enum"]) == {"none", *PACKAGES}


def real(name: str) -> ModuleType:
    module: ModuleType = pytest.importorskip(PACKAGES[name])
    return module


def test_real_tensorboard_files_hold_the_values(tmp_path: Path) -> None:
    real("tensorboard")
    from tensorboardX.proto.event_pb2 import Event

    for start in (1, 3):  # an attempt, and one that goes on behind its second update
        track = tracker("tensorboard", "project", tmp_path, CONFIG)
        for step in range(start, start + 3):
            track.log(step, {"loss": 1 / step, "valid_loss": None if step % 2 else 0.5})
        track.finish()
    found = []
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found += [(event.step, v.tag) for v in event.summary.value if v.tag == "loss"]
            data = data[16 + size :]
    assert sorted(found) == [(s, "loss") for s in (1, 2, 3, 3, 4, 5)]


def test_real_trackio_writes_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    real("trackio")
    track = tracker("trackio", "project", tmp_path, CONFIG)
    for step in (1, 2, 3):
        track.log(step, {"loss": 1 / step})
    track.finish()
    (path,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(path) as database:
        assert [s for (s,) in database.execute("select step from metrics order by step")] == [1, 2, 3]


def test_real_wandb_writes_its_run_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    real("wandb")
    track = tracker("wandb", "project", tmp_path, CONFIG)
    track.log(1, {"loss": 1.0})
    track.finish()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
