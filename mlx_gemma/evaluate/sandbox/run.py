"""Starting a job behind a wall, reading no more than a bound, and ending it on time."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import cast

from mlx_gemma.data import solutions
from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.sandbox import seatbelt
from mlx_gemma.evaluate.sandbox.job import Job, Limits, Outcome, Result
from mlx_gemma.evaluate.sandbox.walls import FIX, Launch, Wall, offered

START_SECONDS = 30.0  # for a machine under load; the job's own clock starts when it is ready
KEPT_BYTES = 8192
WATCH_SECONDS = 0.05
OUT_OF_CPU = (-signal.SIGXCPU, 128 + signal.SIGXCPU)
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


def run(job: Job, *, wall: Wall | None = None, limits: Limits | None = None) -> Result:
    """Run one job, some 80 ms behind bubblewrap (two busy Xeon cores). That the wall holds is for `prove` to say.

    Raises:
        UserError: no wall on this machine, or it does not start.
    """
    wall, limits = wall or choose(), limits or Limits()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as scratch:
        launch = wall.launch(limits, Path(scratch))
        read, write = os.pipe()
        errors, errors_in = os.pipe()
        try:
            process = subprocess.Popen(
                launch.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors_in,
                pass_fds=(*launch.fds, write),
                cwd=scratch,
                env={},
                start_new_session=True,
            )
        finally:
            for fd in (write, errors_in, *launch.fds):
                os.close(fd)
        try:
            return _Watch(wall, limits, Path(scratch), process, read, errors, write).result(job, launch, begun)
        finally:
            for fd in (read, errors):
                os.close(fd)


def run_all(jobs: Iterable[Job], *, wall: Wall | None = None, limits: Limits | None = None) -> Iterator[Result]:
    """Run jobs two at a time; results come in the order of the jobs."""
    wall = wall or choose()
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda job: run(job, wall=wall, limits=limits), jobs)


def starts(wall: Wall) -> bool:
    """Whether a program that does nothing wrong runs behind this wall."""
    try:
        return run(Job("x = 1", ("x == 1",)), wall=wall).passed
    except (UserError, OSError):
        return False


@functools.cache
def choose() -> Wall:
    """The strongest wall that this machine offers and that starts; `prove` tells whether it holds.

    Raises:
        UserError: there is none.
    """
    for wall in offered():
        if starts(wall):
            return wall
    raise UserError("no sandbox for untrusted code on this machine", fix=FIX)


class _Watch:
    """One process: what it says, and when it has to end."""

    def __init__(
        self,
        wall: Wall,
        limits: Limits,
        scratch: Path,
        process: subprocess.Popen[bytes],
        read: int,
        errors: int,
        fd: int,
    ) -> None:
        self.wall, self.limits, self.scratch, self.process = wall, limits, scratch, process
        self.read, self.errors, self.fd = read, errors, fd
        self.token = secrets.token_hex(16)
        self.heard: dict[int, bytes] = {read: b"", errors: b""}
        self.exceeded = ""

    def result(self, job: Job, launch: Launch, begun: float) -> Result:
        told = {**asdict(job), **self.wall.told(launch, self.process.pid), "limits": asdict(self.limits)}
        if self.wall.watched:
            told["limits"]["threads"] = None  # without a user namespace all of the user's threads would be counted
        told |= {"solutions": _solutions(), "token": self.token, "fd": self.fd}
        ready: float | None = None
        late = False
        try:
            for _ in self._listen(json.dumps(told).encode()):
                now = time.monotonic()
                if ready is None and self._said(1) is not None:
                    ready = now
                if self._said(2) is not None or self.exceeded:
                    break
                late = now > (begun + START_SECONDS if ready is None else ready + self.limits.wall)
                if late:
                    break
            if not late and not self.exceeded and self._said(2) is None:
                late = not self._ended(ready or begun)
        finally:
            self.process.kill()
            code = self.process.wait()
        seconds = time.monotonic() - begun
        if self._said(1) is None and not self.exceeded:
            error = self.heard[self.errors].decode(errors="replace").strip()
            raise UserError(f"the sandbox did not start: {error[-200:] or f'exit status {code}'}", where=self.wall.kind)
        said = self._said(2)
        if said is not None and said[0] in ("passed", "wrong", "raises"):
            return Result(cast(Outcome, said[0]), said[1], seconds)
        if late or code in OUT_OF_CPU or (code in KILLED and seconds >= self.limits.cpu and not self.exceeded):
            return Result("timeout", "runs too long", seconds)
        return Result("stopped", self.exceeded or f"ended without a result (exit status {code})", seconds)

    def _said(self, line: int) -> tuple[str, str] | None:
        """Outcome and reason of a line, the first or the second, if it bears the token."""
        lines = self.heard[self.read].decode(errors="replace").split("\n", 1)
        if len(lines) < line or not lines[line - 1].startswith(self.token + " "):
            return None
        outcome, _, reason = lines[line - 1].removeprefix(self.token + " ").partition(" ")
        return outcome, " ".join(reason.split())

    def _listen(self, job: bytes) -> Iterator[None]:
        """Send the job and hear both pipes, until both have ended; a turn at least every WATCH_SECONDS."""
        assert self.process.stdin is not None
        stdin = self.process.stdin.fileno()
        os.set_blocking(stdin, False)
        with selectors.DefaultSelector() as selector, contextlib.closing(self.process.stdin):
            selector.register(stdin, selectors.EVENT_WRITE)
            for fd in self.heard:
                selector.register(fd, selectors.EVENT_READ)
            while self.read in selector.get_map():
                for key, _ in selector.select(WATCH_SECONDS):
                    if key.fd == stdin:
                        job = self._send(stdin, job)
                        if not job:
                            selector.unregister(stdin)
                            self.process.stdin.close()
                    elif not self._hear(key.fd):
                        selector.unregister(key.fd)
                if self.wall.watched:
                    self._measure()
                yield

    def _send(self, stdin: int, job: bytes) -> bytes:
        try:
            return job[os.write(stdin, job[:65536]) :]
        except BrokenPipeError:
            return b""

    def _hear(self, fd: int) -> bool:
        """Read once, keep the first bytes; False at the end."""
        block = os.read(fd, 65536)
        self.heard[fd] += block[: KEPT_BYTES - len(self.heard[fd])]
        return bool(block)

    def _measure(self) -> None:
        if sum(_sizes(self.scratch)) > self.limits.scratch:
            self.exceeded = "wrote more than the scratch directory may hold"
        if self.wall.kind == "seatbelt" and seatbelt.memory(self.process.pid) > self.limits.memory:
            self.exceeded = "used more memory than it may"

    def _ended(self, since: float) -> bool:
        """Whether the process, having closed its pipe, ends before its time is up."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, since + self.limits.wall - time.monotonic()))
        return self.process.returncode is not None


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes of every entry; of an empty one a block, so that files without content end somewhere too."""
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with contextlib.suppress(OSError):
                yield 4096 + Path(place, name).lstat().st_blocks * 512


@functools.cache
def _solutions() -> str:
    return Path(solutions.__file__).read_text()
