"""Two processes over loopback, by mlx's ring, train as one does on the same rows."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import children
import mlx.core as mx
import numpy as np
import pytest
from children import context, lines, recipe, weights
from mlx.utils import tree_flatten

from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.training import batches, checkpoint, loop, optimiser
from mlx_gemma.training.prepare import prepare
from mlx_gemma.training.trainer import Trainer

PLAIN = ("adapter.dropout=0", "train.accumulate=1", "train.steps=6", "validation.every=3", "data.regression=null")
SECONDS = 90


def _rank(rank: int, hosts: Path, log: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.environ |= {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}
    try:
        work(rank, *arguments)
    except UserError as e:
        os.write(2, f"{e}\n".encode())
        os._exit(2)


class Pair:
    """Starts the same work in two processes; ends both when one has failed and the other stays, as mlx.launch does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.children = folder, 0, []

    def start(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        self.count += 1
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        ports = [s.getsockname()[1] for s in sockets]
        for s in sockets:
            s.close()
        hosts = self.folder / f"hosts{self.count}.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
        self.logs = [self.folder / f"log{self.count}-{rank}" for rank in range(2)]
        new = [
            context().Process(target=_rank, args=(rank, hosts, self.logs[rank], work, arguments), daemon=True)
            for rank in range(2)
        ]
        for child in new:
            child.start()
        self.children += new
        return new

    def __call__(self, work: Callable[..., Any], *arguments: Any, grace: float = 30) -> list[int | None]:
        """Exit statuses. `grace`: seconds that one has for its own end once the other has failed."""
        pair = self.start(work, *arguments)
        deadline = time.monotonic() + SECONDS
        while any(c.is_alive() for c in pair):
            assert time.monotonic() < deadline, [log.read_text() for log in self.logs if log.exists()]
            if any(c.exitcode for c in pair):
                deadline = min(deadline, time.monotonic() + grace)
                for c in pair:
                    c.join(max(0, deadline - time.monotonic()))
                    c.kill()
            time.sleep(0.02)
        for c in pair:
            c.join()
        return [c.exitcode for c in pair]

    def said(self) -> list[str]:
        return [log.read_text() for log in self.logs]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    found = Pair(tmp_path)
    yield found
    for child in found.children:
        child.kill()
        child.join()


def update(rank: int, folder: Path, overrides: tuple[str, ...], steps: int, bad: int | None) -> None:
    """`steps` updates; the adapter, what each update said, and the rows this process saw, into `folder`."""
    resolved = recipe(folder, "unused", *overrides)
    ready = prepare(resolved.recipe)
    trainer = Trainer(ready, resolved, mx.distributed.init())
    t, updater = resolved.recipe.train, trainer.updater
    if bad is not None:
        poison(updater, bad)
    size = trainer.group.size()
    stream = batches.stream(ready.train.examples, t, 0, rank, size)
    said, rows = [], []
    for step in range(steps):
        share = next(stream)
        rows.append([r for b in share for r in b.rows])
        said.append(updater(share, optimiser.learning_rate(t, step, steps))._asdict())
    name = f"{size}-{rank}"
    mx.save_safetensors(str(folder / f"{name}.safetensors"), dict(tree_flatten(updater.parameters)))
    (folder / f"{name}.json").write_text(json.dumps({"updates": said, "rows": rows}))


def poison(updater: Any, row: int) -> None:
    """The gradient of every batch that holds a row is NaN."""
    plain = updater.gradient

    def gradient(batch: Any, number: int = 0) -> Any:
        value, grads = plain(batch, number)
        return (value * float("nan") if row in batch.rows else value), grads

    updater.gradient = gradient


def train(rank: int, folder: Path, overrides: tuple[str, ...], resume: bool, stop: tuple[int, int] | None) -> None:
    """A whole run. `stop`: (rank, update) at which Ctrl-C is pressed, on that machine alone."""
    resolved = recipe(folder, "two", *overrides)

    def report(progress: Any) -> None:
        if stop == (rank, progress.step):
            signal.raise_signal(signal.SIGINT)

    (folder / f"writes-{rank}").touch()
    opened, saved = Path.open, mx.save_safetensors

    def noted(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode != "r" and "b" not in mode:
            with opened(folder / f"writes-{rank}", "a") as file:
                file.write(f"{self}\n")
        return opened(self, mode, *args, **kwargs)

    def written(path: str, *args: Any, **kwargs: Any) -> None:
        with opened(folder / f"writes-{rank}", "a") as file:
            file.write(f"{path}\n")
        saved(path, *args, **kwargs)

    Path.open, mx.save_safetensors = noted, written  # type: ignore[method-assign,assignment]
    loop.train(resolved, resume=resume, report=report)


def train_with_a_slow_disk(rank: int, folder: Path) -> None:
    plain = checkpoint.save

    def save(*args: Any) -> None:
        time.sleep(3)
        plain(*args)

    checkpoint.save = save
    train(rank, folder, (*PLAIN, "checkpoint.every=100"), False, (1, 2))


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def difference(a: Path, b: Path) -> float:
    """Of two files' tensors, the norm of the difference over the norm: the worst tensor's."""
    first, second = ({k: np.array(v) for k, v in children.mx.load(str(path)).items()} for path in (a, b))
    assert first.keys() == second.keys()
    return max(float(np.linalg.norm(first[k] - second[k]) / np.linalg.norm(first[k])) for k in first)


def alone(pair: Pair, *arguments: Any) -> None:
    child = context().Process(target=update, args=(0, *arguments), daemon=True)
    pair.children.append(child)
    child.start()
    child.join(SECONDS)
    assert child.exitcode == 0


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_an_update_of_two_is_one_of_one_with_the_same_rows(pair: Pair, tmp_path: Path, layout: str) -> None:
    """29 rows, 4 an update, so that every eighth update has one row, for the first machine."""
    common = ("adapter.dropout=0.1", "train.optimizer=sgd", "train.lr=0.1", "data.limit=29", f"train.layout={layout}")
    steps = 9
    assert pair(update, tmp_path, (*common, "train.accumulate=2"), steps, None) == [0, 0], pair.said()
    alone(pair, tmp_path, (*common, "train.accumulate=4"), steps, None)
    one, *two = (read(tmp_path, name) for name in ("1-0", "2-0", "2-1"))
    assert two[0]["updates"] == two[1]["updates"]
    for mine, theirs in zip(one["updates"], two[0]["updates"], strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-6)
        assert theirs["norm"] == pytest.approx(mine["norm"], rel=1e-5)
        assert (theirs["targets"], theirs["tokens"]) == (mine["targets"], mine["tokens"])
    assert weights(tmp_path / "2-0.safetensors") == weights(tmp_path / "2-1.safetensors")
    far = difference(tmp_path / "1-0.safetensors", tmp_path / "2-0.safetensors")
    print(f"{layout}: relative difference after {steps} updates {far:.1e}")
    assert far < 1e-6
    for mine, first, second in zip(one["rows"], two[0]["rows"], two[1]["rows"], strict=True):
        assert not set(first) & set(second)
        assert sorted(first + second) == sorted(mine)
    if layout == "padded":
        assert sorted(r for rows in one["rows"][:8] for r in rows) == list(range(29))
        assert any(not rows for rows in two[1]["rows"])  # an update of which the second machine has nothing


def test_a_row_that_is_not_finite_is_skipped_and_named_by_both(pair: Pair, tmp_path: Path) -> None:
    assert pair(update, tmp_path, ("train.accumulate=1", "adapter.dropout=0"), 15, 7) == [0, 0], pair.said()
    two = [read(tmp_path, f"2-{rank}") for rank in range(2)]
    for rank in range(2):
        skipped = [u["skipped"] for u in two[rank]["updates"] if u["skipped"]]
        assert len(skipped) == 1
        assert skipped[0].endswith("train.jsonl:8")
    assert weights(tmp_path / "2-0.safetensors") == weights(tmp_path / "2-1.safetensors")


def test_a_run_of_two_is_a_run_of_one_and_only_the_first_writes(pair: Pair, tmp_path: Path) -> None:
    overrides = (*PLAIN, "adapter.dropout=0.1")
    assert pair(train, tmp_path, overrides, False, None) == [0, 0], pair.said()
    whole = loop.train(recipe(tmp_path, "one", *overrides, "train.accumulate=2"))
    for mine, theirs in zip(lines(whole), lines(tmp_path / "two"), strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert theirs[key] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value), key
    far = difference(whole / "adapters.safetensors", tmp_path / "two" / "adapters.safetensors")
    print(f"AdamW: relative difference after 6 updates {far:.1e}")
    assert far < 1e-3  # Adam divides what may be next to nothing by its own size
    assert (tmp_path / "writes-0").read_text()
    assert not (tmp_path / "writes-1").read_text()


def test_ctrl_c_on_one_stops_both_and_resume_goes_on(pair: Pair, tmp_path: Path) -> None:
    """Also with SIGKILL, and with a machine that has not got the checkpoints."""
    assert pair(train, tmp_path, PLAIN, False, None) == [0, 0], pair.said()
    whole = (tmp_path / "two").rename(tmp_path / "whole")
    assert pair(train, tmp_path, PLAIN, False, (1, 2)) == [2, 2], pair.said()
    folder = tmp_path / "two"
    first, second = pair.said()
    assert "stopped after update 3 of 6; add --resume to go on" in first
    assert "stopped after update 3 of 6; see the first machine" in second
    assert [p.name for p in run.checkpoints(folder)] == ["000002", "000003"]

    started = pair.start(train, tmp_path, PLAIN, True, None)
    while len((folder / "metrics.jsonl").read_text().splitlines()) < 6 and all(c.is_alive() for c in started):
        time.sleep(0.01)
    for child in started:
        child.kill()
        child.join()
    assert not (folder / run.MANIFEST).exists()
    assert pair(train, tmp_path, PLAIN, True, None) == [0, 0], pair.said()
    assert weights(folder / "adapters.safetensors") == weights(whole / "adapters.safetensors")
    assert lines(folder) == lines(whole)


def test_all_wait_until_the_first_has_saved(pair: Pair, tmp_path: Path) -> None:
    """A launcher ends all when one ends."""
    pair(train_with_a_slow_disk, tmp_path, grace=0.1)
    assert [p.name for p in run.checkpoints(tmp_path / "two")] == ["000003"]


def elsewhere(rank: int, folder: Path, overrides: tuple[str, ...], other: tuple[str, ...]) -> None:
    loop.train(recipe(folder, f"disk{rank}", *overrides, *(other if rank else ())), resume=True)


def test_machines_that_do_not_begin_with_the_same_are_refused(pair: Pair, tmp_path: Path) -> None:
    statuses = pair(elsewhere, tmp_path, PLAIN, ("train.lr=1e-3",))
    assert statuses == [2, 2], pair.said()
    assert all("machine 1 has another recipe, data or base than machine 0" in said for said in pair.said())
    assert not (tmp_path / "disk0").exists()

    with pytest.raises(RuntimeError, match="stop"):
        loop.train(recipe(tmp_path, "disk0", *PLAIN), report=stop_at_3)
    state = tmp_path / "disk0" / "checkpoints" / "000002"
    assert pair(elsewhere, tmp_path, PLAIN, (), grace=0.5) != [0, 0]
    assert "the number of machines has changed since this checkpoint" in pair.said()[0]
    assert state.exists()


def stop_at_3(progress: Any) -> None:
    if progress.step == 3:
        raise RuntimeError("stop")


def test_checkpoints_that_were_not_copied(pair: Pair, tmp_path: Path) -> None:
    assert pair(train, tmp_path, PLAIN, False, (0, 3)) == [2, 2], pair.said()
    (tmp_path / "two").rename(tmp_path / "disk0")
    assert pair(elsewhere, tmp_path, PLAIN, ()) == [2, 2], pair.said()
    for said in pair.said():
        assert "the machines go on from different updates: [4, 0]; give all of them the same checkpoints/" in said
