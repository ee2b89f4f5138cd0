"""Secrets in any turn of a row: keys, tokens, private keys, passwords in URLs. None is ever shown whole.

The rules are in secret_rules.py. There is none for entropy and none for names like `password = "..."`: in the 31.5
million characters of the standard library's source, detect-secrets 1.5.0 finds 434 such strings, and none is a secret.
Ours find nothing there and in datasets/python3, one in 16,488 files of installed packages (the token for a test server
that transformers publishes), and take 0.05 ms a row.

detect-secrets is the judge in tests/data/test_secrets.py, not a part of this: some of its patterns take the square of
the length, it names no column, and it lacks the tokens of Hugging Face, Google, Anthropic and of today's GitHub.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mlx_gemma.data.checks.secret_rules import RULES, pattern
from mlx_gemma.data.formats import Row
from mlx_gemma.data.reason import Reason


class Found(NamedTuple):
    """A kind of secret and where it is in a text: `text[start:end]`."""

    name: str
    start: int
    end: int


def secrets(row: Row) -> Iterator[Reason]:
    """The secrets in every turn, each with its turn, line and column, masked."""
    return reasons("secrets", row, find_secrets)


def reasons(check: str, row: Row, find: Callable[[str], list[Found]]) -> Iterator[Reason]:
    """What `find` finds in each turn, as reasons that show four characters of it at most."""
    for number, message in enumerate(row.messages, 1):
        text = message["content"]
        if not (found := find(text)):
            continue
        starts = [0, *(m.end() for m in re.finditer("\n", text))]
        for name, start, end in found:
            line = bisect_right(starts, start)
            place = f"turn {number} ({message['role']}), line {line}, column {start - starts[line - 1] + 1}"
            yield Reason(check, f"{place}: {name} {masked(text[start:end])}", name)


def masked(secret: str) -> str:
    """Four characters at most, a quarter of a short one, and the length."""
    return f"{secret[: min(4, len(secret) // 4)]}… ({len(secret)} characters)"


def redacted(text: str, found: list[Found]) -> str:
    """The text with what was found masked: to be shown."""
    parts, at = [], 0
    for _, start, end in found:
        parts += [text[at:start], masked(text[start:end])]
        at = end
    return "".join([*parts, text[at:]])


def find_secrets(text: str) -> list[Found]:
    """The secrets in a text, in order, none overlapping another."""
    found = []
    for rule in RULES:
        if any(anchor in text for anchor in rule.anchors):
            for match in pattern(rule).finditer(text):
                if rule.real(match):
                    found.append(Found(rule.name, *match.span("secret")))
    return without_overlaps(found)


def without_overlaps(found: list[Found]) -> list[Found]:
    """In order of place; of two that overlap the one that starts first, or the longer."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda f: (f.start, -f.end)):
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept
