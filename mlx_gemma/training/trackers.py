"""One door to trackio, wandb and tensorboard: whether one is there is known before training, and none can stop it.

TensorBoard's event files are written by tensorboardX (MIT; a 90 kB wheel on numpy and protobuf), because PyTorch's
writer would need PyTorch, which a Mac does not get from us, and tensorboard's own writer is private to it. Looking at
them needs `tensorboard --logdir RUN`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from mlx_gemma.errors import UserError

PACKAGES = {"trackio": "trackio", "wandb": "wandb", "tensorboard": "tensorboardX"}
NAMES = ("none", *PACKAGES)


class Backend(Protocol):
    """What a tracker has to be able to do. Either call may raise anything."""

    def log(self, step: int, values: dict[str, float]) -> None: ...
    def finish(self) -> None: ...


class Tracker:
    """Sends metrics on. After the first failure it says so in one line and sends nothing more."""

    def __init__(self, name: str, backend: Backend | None, warn: Callable[[str], None]) -> None:
        self._name, self._backend, self._warn = name, backend, warn

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Send one update's values; None, NaN and infinity are left out, for none of the three draws them."""
        known = {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}
        self._try(lambda backend: backend.log(step, known))

    def finish(self) -> None:
        """Send what is still waiting. With wandb online this can take as long as its own retries do."""
        self._try(lambda backend: backend.finish())
        self._backend = None

    def _try(self, call: Callable[[Backend], None]) -> None:
        if self._backend is None:
            return
        try:
            call(self._backend)
        except Exception as e:  # whatever a foreign library raises: a network that is gone, a full disk
            self._backend = None
            told = " ".join(f"{type(e).__name__}: {e}".split())
            self._warn(f"{self._name} failed and gets nothing more, the training goes on: {told}")


def to_stderr(line: str) -> None:
    print(f"mlx-gemma: {line}", file=sys.stderr)


def require(name: str) -> None:
    """Import a tracker's package, so that what is missing is told before anything is read or computed.

    Raises:
        UserError: it is not installed, or does not load.
    """
    if name == "none":
        return
    package = PACKAGES[name]
    try:
        import_module(package)
    except Exception as e:  # a package that is there and broken is no better
        fix = f"pip install {package}, or set report_to=none"
        missing = isinstance(e, ModuleNotFoundError) and e.name == package
        what = f"{package} is not installed" if missing else f"{package} cannot be imported: {e}"
        raise UserError(what, where=f"report_to: {name}", fix=fix) from e


def tracker(
    name: str, project: str, run: Path, config: Mapping[str, Any], warn: Callable[[str], None] = to_stderr
) -> Tracker:
    """Open a tracker's run.

    Args:
        name: one of `NAMES`.
        project: under which the tracker lists its runs; tensorboard has no such thing.
        run: the run folder, which must exist. Its name is the run's; tensorboard and wandb put their files in it.
        config: the recipe's keys and values, flat.
        warn: takes the one line of a failure in mid-run.

    Raises:
        UserError: its package is missing, or it refuses to start (wandb without a login).
    """
    require(name)
    if name == "none":
        return Tracker(name, None, warn)
    openers: dict[str, Callable[..., Backend]] = {"trackio": Trackio, "wandb": Wandb, "tensorboard": TensorBoard}
    try:
        return Tracker(name, openers[name](project, run, dict(config)), warn)
    except Exception as e:
        told = str(e).strip().partition("\n")[0]
        fix = "run `wandb login` or set WANDB_MODE=offline" if name == "wandb" else "set report_to=none"
        raise UserError(f"{name} does not start: {told}", where="report_to", fix=fix) from e


class Trackio:
    """A local SQLite database under ~/.cache/huggingface/trackio; `trackio show` draws it."""

    def __init__(self, project: str, run: Path, config: dict[str, Any]) -> None:
        self.package: Any = import_module("trackio")
        self.package.init(project=project, name=run.name, config=config, embed=False)

    def log(self, step: int, values: dict[str, float]) -> None:
        self.package.log(values, step=step)

    def finish(self) -> None:
        self.package.finish()


class Wandb:
    """Weights & Biases; where it sends to is its own settings' business (WANDB_MODE, `wandb login`)."""

    def __init__(self, project: str, run: Path, config: dict[str, Any]) -> None:
        package: Any = import_module("wandb")
        self.run = package.init(project=project, name=run.name, config=config, dir=str(run))

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def finish(self) -> None:
        self.run.finish()


class TensorBoard:
    """Event files in `tensorboard/` of the run folder, the config as a text.

    The writer opens at the first update, because it then tells readers to forget what an earlier, interrupted
    attempt in the same folder logged from that step on.
    """

    def __init__(self, project: str, run: Path, config: dict[str, Any]) -> None:
        self.open: Any = import_module("tensorboardX").SummaryWriter
        self.folder, self.config = run / "tensorboard", config
        self.writer: Any = None

    def log(self, step: int, values: dict[str, float]) -> None:
        if self.writer is None:
            self.writer = self.open(str(self.folder), purge_step=step, filename_suffix=f".{step}")
            lines = [f"    {k}: {v}" for k, v in self.config.items()]
            self.writer.add_text("recipe", "\n".join(lines), step)
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)

    def finish(self) -> None:
        if self.writer is not None:
            self.writer.close()
