"""In which way an answer is bad, found by parsing and by running it.

Exactly one verdict holds: `python2`, `broken` (no Python parses it), `truncated`, `no code`, `fails` (it runs, but
raises, runs too long or gives a wrong result), or `good`. Everything but `good` is bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_gemma.data.python.code_blocks import code_blocks
from mlx_gemma.data.python.source import classify
from mlx_gemma.data.records import EvalItem, read_eval_items
from mlx_gemma.errors import DataError
from mlx_gemma.evaluate.sandbox import Job, Wall, run

VERDICTS = ("python2", "broken", "truncated", "no code", "fails", "good")


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
    return [_item(found) for found in read_eval_items(path)]


def _item(found: EvalItem) -> Item:
    try:
        tests = found.record["tests"]
        check, prints, stdin = tests.get("check", []), tests.get("prints"), tests.get("stdin", "")
        if not isinstance(check, list) or not all(isinstance(text, str) for text in (*check, prints or "", stdin)):
            raise TypeError("check is a list of texts, prints and stdin are text")
    except (KeyError, TypeError, AttributeError) as e:
        raise DataError(f"no suite item: {e!r}", where=found.where, fix="see evals/README.md") from e
    return Item(found.id, found.prompt, tuple(check), prints, stdin)


def judge(answer: str, item: Item, *, wall: Wall | None = None) -> Verdict:
    """The verdict on one answer. Its code runs in the sandbox (docs/sandbox.md has the time it takes).

    Args:
        wall: by default the strongest of this machine. Whether it holds is to be proved before (`sandbox.prove`).

    Raises:
        UserError: there is code to run and no wall on this machine.
    """
    kind = classify(answer)
    if kind.kind == "none":
        return Verdict("no code")
    if kind.kind != "python3":
        return Verdict(kind.kind, str(kind))
    return _executed("\n\n".join(b.source for b in code_blocks(answer)), item, wall)


def _executed(source: str, item: Item, wall: Wall | None) -> Verdict:
    result = run(Job(source, item.check, item.prints, item.stdin), wall=wall)
    return Verdict("good") if result.passed else Verdict("fails", result.reason)
