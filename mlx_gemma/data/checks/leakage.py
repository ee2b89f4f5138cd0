"""What is in two splits of a data set: rows, prompts, and families.

for leak in leaks({"train": train_rows, "valid": valid_rows, "test": test_rows}):
    print(leak.where, leak.reason.message)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mlx_gemma.data.build.splits import NEAR
from mlx_gemma.data.checks.duplicates import ExactIndex, NearIndex, Shingles, prompt_shingles
from mlx_gemma.data.formats import Row
from mlx_gemma.data.reason import Reason
from mlx_gemma.data.row_keys import KEYS, value_of

CHECK = "leakage"


@dataclass(frozen=True)
class Leak:
    """A row of one split that another split, read before it, gives away."""

    where: str
    split: str
    of_split: str
    reason: Reason


def leaks(splits: Mapping[str, Iterable[Row]], near: float = NEAR) -> Iterator[Leak]:
    """What occurs in two splits, once a row and earlier split, by the first of these that holds:

        exact       prompt and answer are equal, white space aside
        prompt      the prompt is equal, white space aside
        normalised  the prompt is equal, case and punctuation aside
        near        the prompts' shingles are at least `near` similar
        family      both belong to one family (once a family and pair of splits, with the number of rows)

    Rows are read once, in the order of the splits; about 0.3 ms each. Memory: texts of all splits but the last, and
    their prompts' shingles, some kB a row.
    """
    seen: list[_Split] = []
    last = list(splits)[-1] if splits else ""
    for name, rows in splits.items():
        families: Counter[tuple[int, str]] = Counter()
        first: dict[tuple[int, str], str] = {}
        now = _Split(name)
        for row in rows:
            shingles = prompt_shingles(row.prompt)
            family = value_of(row.extra, KEYS["families"])
            for n, earlier in enumerate(seen):
                if found := earlier.find(row, shingles, near):
                    how, says, of = found
                    yield Leak(row.where, name, earlier.name, Reason(CHECK, f"{says} {of} in {earlier.name}", how, of))
                if family is not None and family in earlier.families:
                    families[n, family] += 1
                    first.setdefault((n, family), row.where)
            if name != last:
                now.add(row, shingles, family)
        for (n, family), count in sorted(families.items()):
            of, where = seen[n].families[family], first[n, family]
            says = f"family {family!r} is in {seen[n].name} too ({of}), with {count} rows of {name}"
            yield Leak(where, name, seen[n].name, Reason(CHECK, says, "family", of))
        seen.append(now)


class _Split:
    """What a split holds, to be searched by the later ones."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.families: dict[str, str] = {}  # family -> its first row
        self._exact, self._prompts = ExactIndex(), ExactIndex()
        self._near: NearIndex | None = None
        self._pending: list[tuple[str, Shingles]] = []

    def add(self, row: Row, shingles: Shingles, family: str | None) -> None:
        self._exact.add(row.where, row.prompt, row.answer)
        self._prompts.add(row.where, row.prompt)
        self._pending.append((row.where, shingles))
        if family is not None:
            self.families.setdefault(family, row.where)

    def find(self, row: Row, shingles: Shingles, near: float) -> tuple[str, str, str] | None:
        """(how, what it does, where)."""
        if of := self._exact.find(row.prompt, row.answer):
            return "exact", "repeats", of
        if of := self._prompts.find(row.prompt):
            return "prompt", "asks what is asked by", of
        if self._near is None:
            self._near = NearIndex(near)
            for where, other in self._pending:
                self._near.add(where, other)
        match = self._near.find(shingles)
        if match is None:
            return None
        if match.similarity == 1:
            return "normalised", "asks, case and punctuation aside, what is asked by", match.where
        return "near", f"asks nearly ({match.similarity:.2f}) what is asked by", match.where
