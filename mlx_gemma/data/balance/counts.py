"""What a data set is made of: task types, sources, licences, languages, turns, and how often its answers disagree.

    balance = Balance()
    for row in rows:
        balance.add(row)
    balance.result()            # every table, ready for JSON
    list(balance.findings())    # what should not be overlooked, one Reason each, about the whole set

Rows are counted where they are read, in several processes if need be: a Balance can be pickled, and `merge` adds one to
another, to the same result as one alone. Memory: 8 bytes a row for lengths and 12 for every distinct opening or name
(frequent.py): 36 bytes a row where a million openings all differ. About 0.15 ms of CPU time a row.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_gemma.data.balance import licences
from mlx_gemma.data.balance.findings import findings
from mlx_gemma.data.balance.frequent import Frequent
from mlx_gemma.data.balance.languages import natural_language, programming_languages
from mlx_gemma.data.balance.stances import STANCES, stance
from mlx_gemma.data.formats import Row
from mlx_gemma.data.reason import Reason
from mlx_gemma.data.row_keys import KEYS, value_of

OPENING = 5  # words at the beginning of a prompt or answer
EXAMPLES = 3  # places named in a finding
SHOWN = 50  # rows of a table

JUDGED = ("en", "unclear", "none")  # languages of prompts whose answers the rules for stances can read


class Balance:
    """Counters over rows; see the module."""

    def __init__(self) -> None:
        self.rows = 0
        self.tables = {name: Frequent() for name in KEYS}
        self.openings = {"prompts": Frequent(), "answers": Frequent()}
        self.systems = Frequent()
        self.languages = Counter[str]()
        self.code = Counter[str]()
        self.turns = Counter[int]()
        self.stances = Counter[str]()
        self.judged = 0  # answers whose stance could be read
        self.examples: dict[str, list[str]] = {}  # what -> places
        self._lengths = {"prompts": array("i"), "answers": array("i")}

    def add(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        for name, keys in KEYS.items():
            self._add_value(name, value_of(row.extra, keys), row.where)
        if row.messages[0]["role"] == "system":
            self.systems.add(row.messages[0]["content"])
        self.turns[sum(m["role"] == "user" for m in row.messages)] += 1
        asked, answer = row.messages[-2]["content"], row.answer
        for part, text in (("prompts", asked), ("answers", answer)):
            self.openings[part].add(" ".join(text[: 40 * OPENING].casefold().split()[:OPENING]))
        self._lengths["prompts"].append(min(sum(len(m["content"]) for m in row.messages[:-1]), 2**31 - 1))
        self._lengths["answers"].append(min(len(answer), 2**31 - 1))
        self.code.update(programming_languages(answer) or {"none"})
        language = natural_language(asked)
        self.languages[language] += 1
        if language in JUDGED:
            self.judged += 1
            if (how := stance(answer)) is not None:
                self.stances[how] += 1
                self._example(how, row.where)

    def _add_value(self, name: str, value: str | None, where: str) -> None:
        if name == "licences":
            value = licences.spdx(value) if value is not None else None
            self._example(licences.kind(value) if value is not None else "missing", where)
        if value is not None:
            self.tables[name].add(value)

    def _example(self, what: str, where: str) -> None:
        places = self.examples.setdefault(what, [])
        if len(places) < EXAMPLES:
            places.append(where)

    def merge(self, other: Balance) -> None:
        """Add what another has counted, of rows after these (for the examples, which are the first)."""
        self.rows += other.rows
        self.judged += other.judged
        for name, table in other.tables.items():
            self.tables[name].merge(table)
        for part, openings in other.openings.items():
            self.openings[part].merge(openings)
            self._lengths[part].extend(other._lengths[part])
        self.systems.merge(other.systems)
        self.languages.update(other.languages)
        self.code.update(other.code)
        self.turns.update(other.turns)
        self.stances.update(other.stances)
        for what, places in other.examples.items():
            for where in places:
                self._example(what, where)

    def lengths(self, part: str) -> npt.NDArray[np.int32]:
        """Characters of "prompts" (all turns before the answer) or "answers": int32 [rows], in the order of adding."""
        return np.array(self._lengths[part], dtype=np.int32)

    def nbytes(self) -> int:
        """Bytes of the state that grows with the number of rows."""
        frequent = [*self.tables.values(), *self.openings.values(), self.systems]
        return sum(f.nbytes() for f in frequent) + sum(a.itemsize * len(a) for a in self._lengths.values())

    # What came out

    def result(self) -> dict[str, Any]:
        """Every table, ready for JSON. A table: `distinct` values, rows without (`missing`), the `most` frequent."""
        return {
            "rows": self.rows,
            **{name: self._table(table) for name, table in self.tables.items()},
            "system_prompts": self._table(self.systems),
            "languages": self._counted(self.languages),
            "code": self._counted(self.code),
            "turns": self._counted(self.turns),
            "stances": {"judged": self.judged, **{name: self.stances[name] for name in STANCES}},
            "openings": {part: self._table(openings, 10) for part, openings in self.openings.items()},
            "characters": {part: _percentiles(self.lengths(part)) for part in self._lengths},
            "examples": {what: places for what, places in sorted(self.examples.items()) if what != "permissive"},
        }

    def _table(self, table: Frequent, count: int = SHOWN) -> dict[str, Any]:
        return {
            "distinct": table.distinct(),
            "missing": self.rows - table.total,
            "most": [{"name": t, "rows": n, "share": round(n / self.rows, 4)} for t, n in table.most(count)],
        }

    def _counted(self, counter: Counter[Any]) -> dict[str, int]:
        return {str(name): n for name, n in sorted(counter.items(), key=lambda e: (-e[1], e[0]))[:SHOWN]}

    def findings(self) -> Iterator[Reason]:
        """What should not be overlooked, about the whole set: each names its first rows, `of` is None."""
        return findings(self)


def _percentiles(lengths: npt.NDArray[np.int32]) -> dict[str, int]:
    if not lengths.size:
        return {}
    points = (0, 5, 25, 50, 75, 95, 99, 100)
    return {f"p{p}": int(v) for p, v in zip(points, np.percentile(lengths, points, method="lower"), strict=True)}
