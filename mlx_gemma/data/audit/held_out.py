"""The train rows beside validation and test: what is in two of them, and whether they differ in length.

Compared are the kept rows of train, as these are trained, and every readable row of the others (checks/leakage.py says
what a leak is). Of train only those rows are held in memory that leak: they are found first, in one pass beside the
prompts of the other splits. So memory grows with these and with the leaks, some kB a row, not with train.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_gemma.data.balance.counts import Balance
from mlx_gemma.data.balance.drift import length_drift
from mlx_gemma.data.build.splits import NEAR
from mlx_gemma.data.checks.duplicates import NearIndex, prompt_shingles
from mlx_gemma.data.checks.leakage import Leak, leaks
from mlx_gemma.data.formats import BadRow, Row, scan_rows
from mlx_gemma.data.row_keys import KEYS, value_of
from mlx_gemma.data.sources import data_files
from mlx_gemma.data.visible import one_line
from mlx_gemma.errors import DataError

TRAIN, OTHERS = "train", ("valid", "test")
LISTED = 1000  # leaks; all are counted
EVERY = 256  # rows between two words about the progress

Splits = Mapping[str, Iterable[Row | BadRow]]
"""Rows of validation and test by the split's name; each is read several times."""


@dataclass(frozen=True)
class Again:
    """The rows of a data set's split, read anew whenever they are asked for."""

    data: str
    split: str = TRAIN

    def __iter__(self) -> Iterator[Row | BadRow]:
        return scan_rows(self.data, self.split)


def splits_beside(data: str, valid: str | None = None) -> dict[str, Again]:
    """The other splits of a local folder, and a recipe's `data.valid` in the place of the folder's own.

    Raises:
        DataError: there is no such `valid`.
    """
    found = {}
    if os.path.isdir(folder := os.path.expanduser(data)):
        for split in OTHERS:
            try:
                data_files(folder, split)
            except DataError:
                continue
            found[split] = Again(data, split)
    if valid is not None:
        data_files(valid, "valid")
        found = {"valid": Again(valid, "valid")} | {name: rows for name, rows in found.items() if name != "valid"}
    return found


def compare_splits(
    train: Callable[[], Iterable[Row]], balance: Balance | None, others: Splits, told: Callable[[int], None]
) -> tuple[dict[str, Any], list[str]]:
    """What is in train and in another split, or in two others. About 0.3 ms a row of train.

    Args:
        train: the rows to train on, from the first, whenever it is called.
        balance: of train, for the lengths; None: lengths are not compared.
        told: the number of train rows that are done, now and then.

    Returns:
        ({"rows": by split, "unreadable": by split, "leaks": [{"split", "of_split", "how", "found"}], "listed": the
        first LISTED leaks, "drift": messages}, remarks: a line each). A family that is in two splits is one leak.
    """
    rows, bad, remarks = dict[str, list[Row]](), dict[str, int](), list[str]()
    for name, coming in others.items():
        try:
            read = list(coming)
        except DataError as e:
            remarks.append(f"{name} was not compared with train: {e}")
            continue
        rows[name] = [row for row in read if isinstance(row, Row)]
        bad[name] = len(read) - len(rows[name])
    counted = _Counted(train(), told)
    leaking = list(_leaking(counted, [row for held in rows.values() for row in held]))
    counts, listed = Counter[tuple[str, str, str]](), list[Leak]()
    for leak in leaks({TRAIN: leaking, **rows}):
        counts[leak.split, leak.of_split, leak.reason.name] += 1
        if len(listed) < LISTED:
            listed.append(leak)
    balances = {TRAIN: balance} | {n: _balance(r) for n, r in rows.items()} if balance else {}
    drift = [reason.message for reason in length_drift(balances)]
    told_of = [f"{n:,} rows of {name} cannot be read" for name, n in bad.items() if n]
    return {
        "rows": {TRAIN: counted.rows} | {name: len(held) for name, held in rows.items()},
        "unreadable": bad,
        "leaks": [{"split": s, "of_split": o, "how": how, "found": n} for (s, o, how), n in counts.items()],
        "listed": [_as_json(leak) for leak in listed],
        "drift": drift,
    }, [*remarks, *told_of, *_lines(counts, listed), *(f"length drift: {line}" for line in drift)]


class _Counted:
    """Rows, counted as they go by."""

    def __init__(self, rows: Iterable[Row], told: Callable[[int], None]) -> None:
        self._coming, self._told, self.rows = rows, told, 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._coming:
            self.rows += 1
            if self.rows % EVERY == 0:
                self._told(self.rows)
            yield row


def _leaking(train: Iterable[Row], held: Sequence[Row]) -> Iterator[Row]:
    """Rows of train that another split may repeat; equal prompts are near ones too."""
    index, families = NearIndex(NEAR), {value_of(row.extra, KEYS["families"]) for row in held} - {None}
    for shingles in {s.tobytes(): s for s in (prompt_shingles(row.prompt) for row in held)}.values():
        index.add("", shingles)
    for row in train:
        family = value_of(row.extra, KEYS["families"])
        if family in families or index.find(prompt_shingles(row.prompt)):
            families.discard(family)  # one row of each is enough
            yield row


def _balance(rows: Iterable[Row]) -> Balance:
    balance = Balance()
    for row in rows:
        balance.add(row)
    return balance


def _as_json(leak: Leak) -> dict[str, Any]:
    reason = leak.reason
    found = {"where": leak.where, "split": leak.split, "of_split": leak.of_split, "how": reason.name}
    return found | {"message": reason.message, "of": reason.of}


def _lines(counts: Counter[tuple[str, str, str]], listed: Sequence[Leak]) -> Iterator[str]:
    """A line for every two splits, with its first leak; families apart, as they count otherwise."""
    pairs: dict[tuple[str, str, bool], dict[str, int]] = {}
    for (split, of, how), n in counts.items():
        pairs.setdefault((split, of, how == "family"), {})[how] = n
    for (split, of, families), hows in pairs.items():
        kinds = "" if families else f" ({', '.join(f'{n:,} {how}' for how, n in hows.items())})"
        what = f"{sum(hows.values()):,} {'families' if families else 'rows'} of {split} are in {of} too{kinds}"
        first = next(
            (x for x in listed if (x.split, x.of_split, x.reason.name == "family") == (split, of, families)), None
        )
        says = f"; the first: {one_line(first.where)} {one_line(first.reason.message)}" if first else ""
        yield f"leakage: {what}{says}"


def named(splits: Mapping[str, Again]) -> Iterator[tuple[Path, str]]:
    """The files of the splits, each with the name that messages show."""
    for rows in splits.values():
        yield from data_files(rows.data, rows.split)
