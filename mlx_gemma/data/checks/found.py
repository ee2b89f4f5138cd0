"""What a check of characters found, put into one `Reason` for each kind: the first place, and how many more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlx_gemma.data.reason import Reason


@dataclass(frozen=True)
class Found:
    """Something at character `at` of the text of a turn; turns count from 1."""

    name: str
    what: str
    turn: int
    text: str
    at: int

    @property
    def place(self) -> str:
        line, before = self.text.count("\n", 0, self.at) + 1, self.text.rfind("\n", 0, self.at)
        return f"turn {self.turn}, line {line}, column {self.at - before}"


def reasons(check: str, found: Iterable[Found]) -> Iterator[Reason]:
    """One reason for each name, in the order of their first places."""
    firsts: dict[str, Found] = {}
    more: dict[str, int] = {}
    for one in found:
        if one.name in firsts:
            more[one.name] = more.get(one.name, 0) + 1
        else:
            firsts[one.name] = one
    for name, first in firsts.items():
        rest = f" (and {more[name]} more)" if name in more else ""
        yield Reason(check, f"{first.place}: {first.what}{rest}", name)
