"""In which way an answer is bad, found by parsing and by running it.

Exactly one verdict holds: `python2`, `broken` (no Python parses it), `truncated`, `no code`, `fails` (it runs, but
raises, runs too long or gives a wrong result), or `good`. Everything but `good` is bad.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlx_gemma.data import checks
from mlx_gemma.data.code_blocks import code_blocks
from mlx_gemma.data.python_source import classify
from mlx_gemma.errors import DataError

VERDICTS = ("python2", "broken", "truncated", "no code", "fails", "good")
WALL_SECONDS = 8


@dataclass(frozen=True)
class Item:
    """One prompt of a suite and the checks its answer must pass."""

    id: str
    prompt: str
    check: tuple[str, ...]
    prints: str | None
    stdin: str


@dataclass(frozen=True)
class Verdict:
    verdict: str
    reason: str = ""

    @property
    def bad(self) -> bool:
        return self.verdict != "good"


def read_suite(path: Path) -> list[Item]:
    """A suite: one JSON object a line with `prompt` and `tests`.

    Raises:
        DataError: no such file, an empty one, or a line that is no item (file and line).
    """
    items = []
    try:
        lines = path.read_text(encoding="utf8").split("\n")  # splitlines would cut at U+2028 inside a string
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"cannot be read: {e}", where=path, fix="give a suite from evals/") from e
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            tests = row["tests"]
            items.append(
                Item(
                    str(row.get("id", number)),
                    str(row["prompt"]),
                    tuple(tests.get("check", ())),
                    tests.get("prints"),
                    tests.get("stdin", ""),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise DataError(f"no suite item: {e!r}", where=f"{path}:{number}", fix="see evals/README.md") from e
    if not items:
        raise DataError("no items", where=path, fix="give a suite from evals/")
    return items


def judge(answer: str, item: Item) -> Verdict:
    """The verdict on one answer; about 50 ms, as its code runs in a process of its own (limits: data/checks.py)."""
    kind = classify(answer)
    if kind.kind == "none":
        return Verdict("no code")
    if kind.kind != "python3":
        return Verdict(kind.kind, str(kind))
    return _executed("\n\n".join(b.source for b in code_blocks(answer)), item)


def _executed(source: str, item: Item) -> Verdict:
    job = json.dumps({"source": source, "check": item.check, "prints": item.prints, "stdin": item.stdin})
    with tempfile.TemporaryDirectory() as scratch:
        try:
            done = subprocess.run(
                [sys.executable, "-I", checks.__file__],
                input=job,
                capture_output=True,
                text=True,
                cwd=scratch,
                env={},
                timeout=WALL_SECONDS,
                check=False,
            )
            result = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            return Verdict("fails", "runs too long")
        except ValueError:
            return Verdict("fails", "stopped by a limit")
    return Verdict("good") if result["passed"] else Verdict("fails", result["reason"])
