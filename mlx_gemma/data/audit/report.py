"""The result of an audit: counts, examples, the rows to train on and the others with their reasons; shown and written.

Nothing here holds all rows: they are read again, in order, from where they wait (a list, the spool, the user's files).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_gemma.data.audit import written
from mlx_gemma.data.audit.findings import Findings
from mlx_gemma.data.audit.tally import Tally
from mlx_gemma.data.formats import BadRow, Row
from mlx_gemma.data.policy import CHECKS, FilterPolicy
from mlx_gemma.data.reason import Reason
from mlx_gemma.data.visible import one_line
from mlx_gemma.errors import DataError


@dataclass(frozen=True)
class Judged:
    """A row and everything found in it."""

    row: Row | BadRow
    reasons: tuple[Reason, ...]


@dataclass
class Report:
    """kept + rejected = read. A row with several reasons counts once in `rejected`, once in every check."""

    policy: FilterPolicy
    rows: Iterable[Row | BadRow]  # `read` of them, as often as they are asked for
    read: int
    findings: Findings  # of rejected rows, and of rows that the policy keeps nevertheless
    whole: dict[str, Any] = field(default_factory=dict)  # about the set as a whole: shapes by file, balance
    remarks: list[str] = field(default_factory=list)  # what of that should not be overlooked, a line each
    unasked: list[str] = field(default_factory=list)  # checks that had nothing to go by: no eval files, nothing run
    seconds: float = 0.0
    inputs: dict[str, Any] = field(default_factory=dict)  # digests of data and evals, where they are files
    from_cache: bool = False

    @cached_property
    def tally(self) -> Tally:
        """The counts."""
        return Tally.of(self.findings, self.policy)

    @property
    def rejected_count(self) -> int:
        return self.tally.rejected

    @property
    def kept_count(self) -> int:
        return self.read - self.rejected_count

    @property
    def kept(self) -> list[Row]:
        """The rows to train on, in memory."""
        return list(self.kept_rows())

    @property
    def rejected(self) -> list[Judged]:
        """The rows left out, in memory."""
        return [judged for judged in self.judged() if self.policy.rejects(judged.reasons)]

    @property
    def flagged(self) -> list[Judged]:
        """Rows in which something was found, and which are kept because the policy says so; in memory."""
        return [judged for judged in self.judged() if judged.reasons and not self.policy.rejects(judged.reasons)]

    def kept_rows(self) -> Iterator[Row]:
        """The rows to train on, one by one."""
        for judged in self.judged():
            if isinstance(judged.row, Row) and not self.policy.rejects(judged.reasons):
                yield judged.row

    def judged(self) -> Iterator[Judged]:
        """Every row with its reasons, if any, one by one.

        Raises:
            DataError: the rows are read from the user's files again, and these are no longer what they were.
        """
        findings, number = iter(self.findings), -1
        found = next(findings, None)
        for number, row in enumerate(self.rows):
            if found is None or found.row != number:
                yield Judged(row, ())
                continue
            if found.where != row.where:
                break
            yield Judged(row, found.reasons)
            found = next(findings, None)
        if found is not None or number + 1 != self.read:
            raise DataError("the data has changed since it was audited", fix="audit it again")

    def action(self, check: str) -> str:
        """What is done about a row in which the check finds something; off: it was not looked for."""
        return "off" if check in self.unasked else self.policy.action(check)

    def found(self) -> dict[str, int]:
        """Rows per check, whatever was done about them; every check is listed, in CHECKS order."""
        return {check: self.tally.checks[check] for check in CHECKS}

    def names(self) -> dict[str, dict[str, int]]:
        """Rows per check and kind of thing found, the most frequent first."""
        counts = self.tally.names
        return {
            check: dict(sorted(names.items(), key=lambda n: (-n[1], n[0]))) for check, names in counts.items() if names
        }

    def examples(self, check: str) -> list[str]:
        """The first rows in which a check found something, with what it said."""
        return self.tally.examples[check]

    def clusters(self) -> dict[str, list[str]]:
        """Kept row -> the rows left out as its duplicates, by their `where`."""
        clusters: dict[str, list[str]] = {}
        for found in self.findings:
            for reason in found.reasons:
                if reason.check in ("exact_duplicates", "near_duplicates", "semantic"):
                    clusters.setdefault(str(reason.of), []).append(found.where)
        return clusters

    def breaches(self) -> list[str]:
        """The policy's limits that the data goes beyond, a line each."""
        counts, read = self.found(), self.read
        return [
            f"{check}: {counts[check]:,} of {read:,} rows ({counts[check] / read:.2%}), the limit is {limit:.2%}"
            for check, limit in self.policy.limits.items()
            if counts[check] > limit * read
        ]

    def table(self) -> list[tuple[str, int, str, str]]:
        """(check, rows found, what is done about them, an example) of every check."""
        return [
            (check, n, self.action(check), one_line(next(iter(self.examples(check)), "")))
            for check, n in self.found().items()
        ]

    def summary_lines(self) -> list[str]:
        lines = [f"{check:<17}{n:>7}  {action:<7}  {example[:100]}" for check, n, action, example in self.table()]
        head = f"{self.read} rows read, {self.kept_count} kept, {self.rejected_count} rejected"
        return [head, *lines]

    def as_json(self) -> dict[str, Any]:
        """Counts, what was done, and the place and reasons of every row with a fault; as a run folder keeps it."""
        return written.as_json(self)

    def write_json(self, path: Path) -> None:
        """`as_json` as a file, whole or not at all, without holding it.

        Raises:
            UserError: the folder cannot be written to, or the disk is full.
        """
        written.write_json(self, path)

    def write(self, clean: str | Path, rejected: str | Path) -> None:
        """Write the kept rows, and the rejected ones with their reasons; each file appears whole or not at all.

        Raises:
            UserError: a folder cannot be written to, or the disk is full.
            DataError: see `judged`.
        """
        written.write(self, Path(clean), Path(rejected))
