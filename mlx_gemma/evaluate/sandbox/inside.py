"""The program behind the wall: takes a job, gives up its powers, runs the job, says what came of it.

It is given as `python -c` and the job as JSON on standard input, so that no file of this project need be readable:

    {"solutions": its text, "limits", "token", "fd", "drop_to", "landlock", "source", "check", "prints", "stdin"}

The answer, `token ready`, then `token outcome reason`, goes to the descriptor `fd`. What the job prints never counts:
without the token an answer is no answer. Code written against this very file can find the token in a frame, or replace
the checks; the functions here and in solutions.py only have their own copy of the builtins, so that a patched `eval`
changes nothing. Standard library only.
"""

from __future__ import annotations

import builtins
import os
import sys
import types
from typing import Any


def main(job: dict[str, Any]) -> None:
    limits, fd, token = job["limits"], job["fd"], job.pop("token")
    _drop_root(job["drop_to"])
    _limit(limits)
    solutions = types.ModuleType("solutions")
    vars(solutions)["__builtins__"] = {**vars(builtins), "exec": _execute}
    exec(compile(job["solutions"], "<checks>", "exec"), vars(solutions))
    if job["landlock"] is not None:
        landlock = types.ModuleType("landlock")
        exec(compile(job["landlock"]["program"], "<landlock>", "exec"), vars(landlock))
        landlock.enforce(job["landlock"])
    _add_exit()
    write, end, traceback_of = os.write, os._exit, _raised_in
    write(fd, f"{token} ready\n".encode())
    try:
        solutions.run_checks(job["source"], job["check"], job["prints"], job["stdin"])
        said = "passed"
    except solutions.CheckFailed as e:
        said = ("raises " if traceback_of(e.__cause__, "<solution>") else "wrong ") + str(e)[:300]
    except RecursionError as e:
        said = f"raises {type(e).__name__}: {e}"
    write(fd, f"{token} {said}".encode("utf-8", "backslashreplace"))
    end(0)  # not waiting for threads that the code left


def _drop_root(to: int | None) -> None:
    if to is not None:
        os.setgroups([])
        os.setresgid(to, to, to)
        os.setresuid(to, to, to)


def _limit(limits: dict[str, Any]) -> None:
    import resource

    for name, most in (
        ("RLIMIT_CPU", limits["cpu"]),
        ("RLIMIT_FSIZE", limits["file"]),
        ("RLIMIT_NOFILE", limits["open_files"]),
        ("RLIMIT_NPROC", limits["threads"]),
        ("RLIMIT_AS", limits["memory"]),
        ("RLIMIT_CORE", 0),
    ):
        if most is None or (sys.platform == "darwin" and name == "RLIMIT_AS"):
            continue  # macOS does not keep it; the watcher outside measures
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY and hard <= most:
            resource.setrlimit(kind, (hard, hard))
            continue
        # SIGXCPU at the soft limit tells a timeout from other ends; ignoring it gains one second.
        resource.setrlimit(kind, (most, most + (name == "RLIMIT_CPU")))


def _raised_in(error: BaseException | None, file: str) -> bool:
    """Whether the traceback passes through `file`: the program raised, not a check that lacks a name."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == file:
                return True
            trace = trace.tb_next
        if isinstance(error, SyntaxError):
            return True
        error = error.__cause__  # of "generator raised StopIteration" only the cause was raised in the generator
    return False


def _execute(code: types.CodeType, scope: dict[str, Any]) -> None:
    """`exec` with the real builtins: the program's are not the copy that the checks use."""
    scope["__builtins__"] = builtins
    exec(code, scope)


def _add_exit() -> None:
    """`exit` and `quit`, which come from the site module that is not imported here."""
    import _sitebuiltins

    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))


if __name__ == "__main__":
    import json

    text = sys.stdin.buffer.read()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    main(json.loads(text))
