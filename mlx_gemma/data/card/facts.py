"""What a dataset card tells of the rows: counted in one pass over each split, in little memory.

Licences, sources and task types are read from the rows' own keys, whichever of the usual names they have; rows that
have none are counted too, as a missing licence is a finding.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma.data import row_keys
from mlx_gemma.data.formats import BadRow, Row, scan_rows
from mlx_gemma.data.sources import data_files
from mlx_gemma.errors import DataError

if TYPE_CHECKING:
    from mlx_gemma.gemma4.template import ChatTemplate

SPLITS = ("train", "valid", "test")
KEYS = {"licence": row_keys.KEYS["licences"], "source": row_keys.KEYS["sources"], "task": row_keys.KEYS["tasks"]}
FENCE = re.compile(r"^ {0,3}(?:```|~~~)[ \t]*([\w+#.-]+)", re.MULTILINE)
MOST = 10_000  # different values counted of one key; a key with more is an id, and the rest are counted as one


@dataclass
class Facts:
    """Counts of one split."""

    files: list[Path]
    rows: int = 0
    bad: int = 0
    values: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in KEYS})
    missing: Counter[str] = field(default_factory=Counter)  # rows without a key of the kind
    fences: Counter[str] = field(default_factory=Counter)  # rows whose answer has a block of the language
    tokens: Counter[int] = field(default_factory=Counter)  # rows by length in tokens
    supervised: int = 0

    def add(self, row: Row, template: ChatTemplate | None) -> None:
        self.rows += 1
        for kind, keys in KEYS.items():
            found = _values(row.extra, keys)
            self.missing[kind] += not found
            for value in found:
                counted = self.values[kind]
                counted[value if value in counted or len(counted) < MOST else "(further values)"] += 1
        for language in {name.lower() for name in FENCE.findall(row.answer)}:
            self.fences[language] += 1
        if template is not None:
            example = template.example(row.messages)
            self.tokens[len(example.tokens)] += 1
            self.supervised += example.targets

    def percentile(self, share: float) -> int:
        """The smallest length that at least `share` of the rows do not exceed; 0 where none was counted."""
        wanted, seen = share * self.tokens.total(), 0
        for length, rows in sorted(self.tokens.items()):
            seen += rows
            if seen >= wanted:
                return length
        return 0


def read_facts(data: Path, template: ChatTemplate | None = None) -> dict[str, Facts]:
    """Facts by split: of a folder's train, valid and test, or of one file, which counts as train.

    Raises:
        DataError: nothing to read.
    """
    found: dict[str, Facts] = {}
    for split in SPLITS if data.is_dir() else ("train",):
        try:
            files = [file for file, _ in data_files(data, split)]
        except DataError:
            if not data.is_dir():
                raise
            continue
        facts = found[split] = Facts(files)
        for row in scan_rows(data, split):
            if isinstance(row, BadRow):
                facts.bad += 1
            else:
                facts.add(row, template)
    if not found:
        fix = "a folder needs train.jsonl or train.parquet (or valid, test); or give a file"
        raise DataError("no data here", where=data, fix=fix)
    return found


def together(facts: Mapping[str, Facts], kind: str) -> tuple[Counter[str], int]:
    """The values of a kind over all splits, and how many rows have none."""
    values: Counter[str] = Counter()
    for split in facts.values():
        values.update(split.values[kind])
    return values, sum(split.missing[kind] for split in facts.values())


def _values(extra: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    for key in keys:
        value = extra.get(key)
        if isinstance(value, str) and value.strip():
            return [value.strip()]
        if isinstance(value, list) and value and all(isinstance(v, str) and v.strip() for v in value):
            return [v.strip() for v in value]
    return []
