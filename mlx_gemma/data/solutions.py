"""Running a solution against its checks, in this process or, as a script, in one of its own. Standard library only.

    python -I checks.py < job.json      {"source", "check", "prints", "stdin"} -> {"passed", "reason"}

As a script it limits its own CPU seconds, memory, file size and open files: that contains accidents (an endless loop, a
huge list), not malice. It is used on the project's own families and on answers to the project's own prompts.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

CPU_SECONDS, MEMORY_BYTES, FILE_BYTES, OPEN_FILES = 4, 512 * 2**20, 2**20, 32


class CheckFailed(Exception):
    """A solution that does not do what was asked."""


def run_checks(source: str, check: Sequence[str], prints: str | None, stdin: str) -> None:
    """Execute `source`, compare its output, evaluate its checks.

    A script, which prints or reads, runs as `__main__`; what is only checked is imported, so to say, and its guarded
    demonstration does not run. To leave with status 0 is to end.

    Args:
        check: expressions that must be true afterwards; `printed(f, *args)` is a call's output, `raises(E, f, *args)`
            tells whether it raises.
        prints: a Python expression for the whole standard output; None: not compared.
        stdin: what `input()` reads.

    Raises:
        CheckFailed: with the reason.
    """
    module = types.ModuleType("__main__" if prints is not None or stdin else "solution")
    module.__file__ = "solution.py"
    scope = vars(module)
    sys.modules.setdefault(module.__name__, module)  # where dataclasses look for what their annotations mean

    def execute() -> None:
        try:
            exec(compile(source, "<solution>", "exec"), scope)
        except SystemExit as e:
            if e.code not in (None, 0):
                raise

    def printed(call: Callable[..., Any], *args: Any, stdin: str = "", **kwargs: Any) -> str:
        return _captured(lambda: call(*args, **kwargs), stdin)

    def raises(kind: type[BaseException], call: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        try:
            call(*args, **kwargs)
        except kind:
            return True
        return False

    try:
        out = _captured(execute, stdin)
        if prints is not None and out != (want := eval(prints, {})):
            raise CheckFailed(f"printed {out!r}, not {want!r}")
        scope.update(printed=printed, raises=raises)
        for expression in check:
            if not _captured_value(expression, scope):
                raise CheckFailed(f"not true: {expression}")
    except CheckFailed:
        raise
    except (Exception, SystemExit) as e:
        raise CheckFailed(f"{type(e).__name__}: {e}") from e
    finally:
        if sys.modules.get("solution") is module:
            del sys.modules["solution"]


def _captured_value(expression: str, scope: dict[str, Any]) -> Any:
    value: list[Any] = []
    _captured(lambda: value.append(eval(expression, scope)), "")
    return value[0]


def _captured(action: Callable[[], Any], stdin: str) -> str:
    before, sys.stdin = sys.stdin, io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
            action()
    finally:
        sys.stdin = before
    return out.getvalue()


def main() -> None:
    import resource

    job = json.load(sys.stdin)
    for what, most in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        resource.setrlimit(what, (most, most))
    if sys.platform == "linux":  # macOS does not enforce it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        run_checks(job["source"], job["check"], job["prints"], job["stdin"])
        result = {"passed": True, "reason": ""}
    except CheckFailed as e:
        result = {"passed": False, "reason": str(e)[:300]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
