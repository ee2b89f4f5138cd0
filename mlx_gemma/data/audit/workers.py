"""The first pass in several processes: each takes every n-th chunk of the spool, and the answers come back in order.

The processes talk pickle over their standard streams. Not `multiprocessing`: its spawned processes import the caller's
script again, which would need a guard in every script that trains.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from mlx_gemma.data.audit.scan import Scan, Scanned
from mlx_gemma.data.audit.spool import CHUNK_ROWS, Rows, Spool
from mlx_gemma.errors import UserError

AHEAD = 2  # chunks that a process has before it: one under way, one waiting
MOST = 8  # processes; each takes some 200 MB


def processors() -> int:
    """How many processes to use where nobody says: the processors this one may use, at most MOST."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST)


def scanned(rows: Rows, scan: Scan, workers: int) -> Iterator[Scanned]:
    """Every chunk scanned, in order.

    Args:
        workers: processes; 1, or rows that are no spool: in this one.

    Raises:
        UserError: a process was killed.
    """
    if workers == 1 or not isinstance(rows, Spool):
        chunks = map(rows.chunk, range(rows.chunks)) if isinstance(rows, Spool) else _slices(rows)
        yield from map(scan.chunk, chunks)
        return
    with ExitStack() as stack:
        running = [stack.enter_context(_Worker(rows.path, scan)) for _ in range(min(workers, rows.chunks))]
        for number in range(min(AHEAD * len(running), rows.chunks)):
            running[number % len(running)].ask(number)
        for number in range(rows.chunks):
            worker = running[number % len(running)]
            found = worker.answer()
            if (later := number + AHEAD * len(running)) < rows.chunks:
                worker.ask(later)
            yield found


def _slices(rows: Rows) -> Iterator[Rows]:
    return (rows[i : i + CHUNK_ROWS] for i in range(0, len(rows), CHUNK_ROWS))


class _Worker:
    """A process, from its start to its end."""

    def __init__(self, path: Path, scan: Scan) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the parent, which ends this
        )
        self._send((str(path), scan))

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                assert stream is not None
                stream.close()
        self._process.wait()

    def ask(self, chunk: int) -> None:
        self._send(chunk)

    def _send(self, what: Any) -> None:
        stream = self._process.stdin
        assert stream is not None
        try:
            pickle.dump(what, stream)
            stream.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def answer(self) -> Scanned:
        stream = self._process.stdout
        assert stream is not None
        try:
            found: Scanned = pickle.load(stream)
        except EOFError:
            raise self._ended() from None
        return found

    def _ended(self) -> Exception:
        status = self._process.wait()
        if status > 0:  # its traceback is on the screen
            return RuntimeError(f"a worker process of the audit ended with status {status}")
        fix = "free memory, or take fewer (--workers 1)"
        return UserError(f"a worker process of the audit was killed (signal {-status})", fix=fix)


def main() -> None:
    """A worker process: answers chunk numbers until its input ends."""
    incoming, outgoing = sys.stdin.buffer, _private_stdout()
    path, scan = pickle.load(incoming)
    spool = Spool(Path(path))
    while True:
        try:
            number = pickle.load(incoming)
        except EOFError:
            return
        pickle.dump(scan.chunk(spool.chunk(number)), outgoing)
        outgoing.flush()


def _private_stdout() -> IO[bytes]:
    """Standard output for answers alone: what a library prints goes to standard error."""
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return private
