"""Training in processes of its own, that can be killed: what test_resume.py and test_distributed.py share.

A forkserver imports the heavy modules once, so that a start costs what reading data and model costs, and runs no mlx
operation, whose threads a fork would not take along.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot  # noqa: F401  (as mlx_lm: a run imports it late)
import mlx.core as mx
import mlx_lm.models.gemma4_text
import mlx_lm.utils  # noqa: F401

import mlx_gemma.training.loop as loop
from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.checkpoint import NANO
from mlx_gemma.gemma4.template import ChatTemplate
from mlx_gemma.recipe import Resolved, read_recipe
from mlx_gemma.training import checkpoint, optimiser
from mlx_gemma.training.trainer import Trainer

ChatTemplate(NANO)  # makes transformers import what it needs

TIMED = ("tokens_per_second", "peak_memory_gb", "seconds")  # of a line of metrics.jsonl and of a manifest's result
PHASES = ("start-up", "update", "validation", "checkpoint write", "best adapter write", "between", "finish")
RECIPE = """
model: {{name: nano}}
adapter: {{rank: 4, alpha: 8, dropout: 0.1}}
data: {{train: {train}, valid: {valid}, regression: {valid}}}
filter: {{near_duplicates: keep}}
train: {{steps: 20, lr: 5e-3, warmup: 0.2, batch: 1, accumulate: 2, length: 96, seed: 5}}
validation: {{every: 4, keep: best}}
checkpoint: {{every: 2}}
output: {output}
"""


def write_rows(path: Path, count: int, start: int = 0) -> Path:
    """Rows of different lengths."""
    rows = []
    for i in range(start, start + count):
        code = "".join(f"    x = x * {i + j} + {j}\n" for j in range(1 + i % 3))
        answer = f"```python\ndef f{i}(x):\n{code}    return x\n```"
        messages = [
            {"role": "user", "content": f"Write function number {i}."},
            {"role": "assistant", "content": answer},
        ]
        rows.append(json.dumps({"messages": messages}) + "\n")
    return write(path, "".join(rows))


def write(path: Path, text: str) -> Path:
    """At once: two processes make the same files."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf8")
    return part.replace(path)


def recipe(folder: Path, output: str = "run", *overrides: str) -> Resolved:
    """A run of 20 updates on nano, on 30 rows in `folder`."""
    for name, count, start in (("train", 30, 0), ("valid", 4, 40)):
        if not (path := folder / f"{name}.jsonl").exists():
            write_rows(path, count, start)
    text = RECIPE.format(train=folder / "train.jsonl", valid=folder / "valid.jsonl", output=folder / output)
    return read_recipe(write(folder / f"{output}.yaml", text), overrides)  # one for each process that has its own


def weights(path: Path) -> dict[str, bytes]:
    """Every tensor of a file, as bytes."""
    arrays: dict[str, Any] = mx.load(str(path))
    return {name: bytes(memoryview(a)) for name, a in arrays.items()}


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on time."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMED} for line in found]


def result(folder: Path) -> dict[str, Any]:
    """The manifest without what depends on time, and without the recipe's digest, which holds its output."""
    manifest = run.read_manifest(folder)
    manifest["result"] = {k: v for k, v in manifest["result"].items() if k not in TIMED}
    return {k: v for k, v in manifest.items() if k != "recipe"}


def assert_same(folder: Path, whole: Path) -> None:
    """A run that was interrupted left what one that was not has left."""
    assert weights(folder / "adapters.safetensors") == weights(whole / "adapters.safetensors")
    assert lines(folder) == lines(whole)
    assert result(folder) == result(whole)
    assert {p.name for p in folder.iterdir()} == {p.name for p in whole.iterdir()}
    kept = [{p.name: p.read_bytes() for p in (f / run.SNAPSHOTS).glob("*")} for f in (folder, whole)]
    assert kept[0] == kept[1]


@cache
def context() -> Any:
    """The forkserver's context, with this module imported there."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["conftest", __name__])  # conftest loads the BLAS before mlx
    before = os.environ.get("PYTHONPATH")
    os.environ |= {
        "PYTHONPATH": f"{Path(__file__).parent.parent}{os.pathsep}{Path(__file__).parent}",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    try:
        from multiprocessing import forkserver

        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return found


def train(
    resolved: Resolved,
    log: Path,
    *,
    phase: Any = None,
    die_at: int = 0,
    touches: Any = None,
    largest_file: int = 0,
    report: Callable[[Any], None] = lambda p: None,
) -> None:
    """What a child does: train, with resume. Its exit status is 0, or 2 for a UserError, whose line is in `log`.

    Args:
        phase: shared memory that tells the parent what is going on (an index of `PHASES`).
        die_at: kill itself before call number so many, from 1, of those by which a run touches the disk.
        touches: shared memory for the number of those calls.
        largest_file: in bytes; writing more fails, as on a full disk.
    """
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    if phase is not None:
        mark(phase)
    if die_at:
        die(die_at, touches)
    if largest_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    try:
        loop.train(resolved, resume=True, report=report)
    except UserError as e:
        print(e, file=sys.stderr)
        sys.stderr.flush()
        os._exit(2)


def start(resolved: Resolved, log: Path, **options: Any) -> Any:
    """A child that trains."""
    child = context().Process(target=train, args=(resolved, log), kwargs=options, daemon=True)
    child.start()
    return child


def mark(phase: Any) -> None:
    """Note what is going on."""

    def during(index: int, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            phase.value = index
            try:
                return function(*args, **kwargs)
            finally:
                phase.value = PHASES.index("between")

        return wrapped

    optimiser.Updater.__call__ = during(1, optimiser.Updater.__call__)  # type: ignore[method-assign]
    Trainer.mean_loss = during(2, Trainer.mean_loss)  # type: ignore[method-assign]
    checkpoint.save = during(3, checkpoint.save)
    Trainer.save = during(4, Trainer.save)  # type: ignore[method-assign]
    Trainer.finish = during(6, Trainer.finish)  # type: ignore[method-assign]


TOUCHES = ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "rmdir"), (os, "unlink"), (mx, "save_safetensors"))


def die(at: int, touches: Any) -> None:
    """SIGKILL before call number `at` of `TOUCHES`; where mlx would write, half the file is there by then."""

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            touches.value += 1
            if touches.value == at:
                if name == "save_safetensors":
                    function(*args, **kwargs)
                    os.truncate(args[0], os.path.getsize(args[0]) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for module, name in TOUCHES:
        setattr(module, name, counted(name, getattr(module, name)))
