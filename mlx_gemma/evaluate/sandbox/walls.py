"""Which wall this machine has, and how a process is started behind it."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlx_gemma.evaluate.sandbox import bubblewrap, landlock, seatbelt, seccomp
from mlx_gemma.evaluate.sandbox.job import Limits

HERE = Path(__file__).parent
SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/nix/store")
FIX = "install bubblewrap (`apt install bubblewrap`), or use --unsafe-exec on a machine that has nothing to lose"


@dataclass(frozen=True)
class Launch:
    """A command, the descriptors it needs, and what the program inside is told."""

    command: list[str]
    fds: tuple[int, ...] = ()
    drop_to: int | None = None
    landlock: dict[str, Any] | None = None


@dataclass(frozen=True)
class Wall:
    """A way of keeping a process in; `none`: limits only."""

    kind: Literal["bubblewrap", "landlock", "seatbelt", "none"]

    @property
    def watched(self) -> bool:
        """Whether scratch and memory must be measured from outside while it runs."""
        return self.kind != "bubblewrap"

    def launch(self, limits: Limits, scratch: Path) -> Launch:
        """How to start `python -c PROGRAM` with `scratch` as its working folder. The caller closes `fds`."""
        program = [str(python()), "-I", "-S", "-B", "-c", (HERE / "inside.py").read_text()]
        if self.kind == "bubblewrap":
            fd = _pipe_with(seccomp.program(alone=False))
            outer = bubblewrap.arguments(readable(), hidden(), scratch=limits.scratch, filter_fd=fd)
            to = bubblewrap.NOBODY if os.geteuid() == 0 else None
            return Launch([str(bubblewrap.binary()), *outer, "--", *program], (fd,), drop_to=to)
        if self.kind == "seatbelt":
            text = seatbelt.profile(python(), readable(), scratch.resolve())
            return Launch([str(seatbelt.binary()), "-p", text, *program])
        if self.kind == "landlock":
            read = [*map(str, readable()), *bubblewrap.DEVICES]
            told = {"program": Path(landlock.__file__).read_text(), "read": read, "write": [str(scratch)]}
            return Launch(program, landlock=told)
        return Launch(program)

    def told(self, launch: Launch, pid: int) -> dict[str, Any]:
        """What the program inside must know of its wall, once its process has a number."""
        inner = launch.landlock
        if inner is not None:
            inner = {**inner, "filter": seccomp.program(alone=True, pid=pid).hex()}
        return {"drop_to": launch.drop_to, "landlock": inner}


def without_wall() -> Wall:
    """Limits only, no wall: what --unsafe-exec asks for."""
    return Wall("none")


def offered() -> list[Wall]:
    """Walls whose parts are present, strongest first."""
    if sys.platform == "darwin":
        return [Wall("seatbelt")] if seatbelt.binary() else []
    if sys.platform != "linux" or not seccomp.supported():
        return []
    found = [Wall("bubblewrap")] if bubblewrap.binary() else []
    return found + ([Wall("landlock")] if landlock.abi() >= landlock.LEAST_ABI else [])


@functools.cache
def python() -> Path:
    """The interpreter behind the virtual environment, whose folder it does not need."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


@functools.cache
def readable() -> tuple[Path, ...]:
    """What Python needs to be read: itself, its standard library, the system's libraries; real paths."""
    found = [Path(p) for p in SYSTEM if Path(p).exists() and (p != "/nix/store" or python().is_relative_to(p))]
    if sys.platform == "darwin":
        found = []
    library = Path(os.__file__).resolve().parent
    shared = sysconfig.get_config_var("LIBDIR")
    mine = [library, python(), library.parent, *([Path(shared).resolve()] if shared else [])]
    framework = sysconfig.get_config_var("PYTHONFRAMEWORKPREFIX")
    if framework:
        mine.append(Path(framework).resolve())
    for path in sorted(mine, key=lambda p: len(p.parts)):
        if path.exists() and not any(path.is_relative_to(p) for p in found):
            found.append(path)
    return tuple(found)


def hidden() -> list[Path]:
    """Third-party packages, which lie in the standard library's folder."""
    library = Path(os.__file__).resolve().parent
    return [p for name in ("site-packages", "dist-packages") if (p := library / name).is_dir()]


def _pipe_with(content: bytes) -> int:
    """The reading end of a pipe that already holds `content` (less than a pipe's 64 KiB)."""
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    return read
