"""What of an audit is shown: some rows of every check, of every kind of thing found, and the largest clusters.

Two passes over what was found, some 7 us a reason each, and one over the rows, which ends with the last row wanted: 11
us a row of a spool, 48 of a file (one core of an Intel Xeon at 2.10 GHz). Memory: a count for each row that has
duplicates.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mlx_gemma.data.audit.findings import Found
from mlx_gemma.data.audit.report import Report
from mlx_gemma.data.formats import BadRow, Row
from mlx_gemma.errors import DataError

EXAMPLES = 20  # rows of a check
NAMES = 12  # kinds of thing found in a check, the most frequent
CLUSTERS, MEMBERS = 10, 20
DUPLICATES = ("exact_duplicates", "near_duplicates", "semantic")
PAIRS = (*DUPLICATES, "contradictions")  # whose reasons name another row of the data


@dataclass
class Cluster:
    """A row kept, and rows left out as its duplicates."""

    where: str
    size: int  # rows left out
    members: list[tuple[str, str]] = field(default_factory=list)  # (where, message), MEMBERS at most


@dataclass
class Shown:
    """Everything chosen."""

    first: Counter[str] = field(default_factory=Counter)  # rejected rows, each by the first check that rejects it
    flagged: int = 0  # rows in which something was found, and which are kept
    repeated: int = 0  # rows kept that have duplicates
    examples: dict[str, list[Found]] = field(default_factory=dict)  # check -> rows, in order
    clusters: list[Cluster] = field(default_factory=list)  # the largest first
    rows: dict[int, Row | BadRow] = field(default_factory=dict)  # by their number
    others: dict[str, Row] = field(default_factory=dict)  # by their `where`


def choose(report: Report) -> Shown:
    """Choose what is shown.

    Raises:
        DataError: the rows are read from the user's files again, and these are no longer what they were.
    """
    shown, sizes = Shown(), Counter[str]()
    named = {check: set(list(names)[:NAMES]) for check, names in report.names().items()}
    found_first: dict[tuple[str, str], list[Found]] = {}
    for found in report.findings:
        rejecting = [r.check for r in found.reasons if report.policy.action(r.check) != "keep"]
        shown.first.update(rejecting[:1])
        shown.flagged += not rejecting
        for check, name in dict.fromkeys((r.check, r.name) for r in found.reasons):
            kept = found_first.setdefault((check, name if name in named.get(check, ()) else ""), [])
            if len(kept) < EXAMPLES:
                kept.append(found)
        sizes.update(str(r.of) for r in found.reasons if r.check in DUPLICATES)
    for check in {check for check, _ in found_first}:
        shown.examples[check] = _mixed([kept for (c, _), kept in found_first.items() if c == check])
    shown.repeated = len(sizes)
    largest = sorted(sizes.items(), key=lambda c: -c[1])[:CLUSTERS]
    shown.clusters = [Cluster(where, size) for where, size in largest]
    _fill(shown, report)
    _read(shown, report)
    return shown


def _mixed(kinds: list[list[Found]]) -> list[Found]:
    """The first of every kind, the second of every kind, and so on: EXAMPLES rows, each once, in order."""
    chosen: dict[int, Found] = {}
    for turn in range(EXAMPLES):
        for found in (kind[turn] for kind in kinds if turn < len(kind)):
            if len(chosen) < EXAMPLES:
                chosen.setdefault(found.row, found)
    return [chosen[row] for row in sorted(chosen)]


def _fill(shown: Shown, report: Report) -> None:
    clusters = {cluster.where: cluster for cluster in shown.clusters}
    for found in report.findings if clusters else ():
        for reason in found.reasons:
            cluster = clusters.get(str(reason.of)) if reason.check in DUPLICATES else None
            if cluster is not None and len(cluster.members) < MEMBERS:
                cluster.members.append((found.where, reason.message))


def _read(shown: Shown, report: Report) -> None:
    wanted = {found.row: found.where for examples in shown.examples.values() for found in examples}
    of = {cluster.where for cluster in shown.clusters}
    for examples in shown.examples.values():
        of |= {r.of for found in examples for r in found.reasons if r.check in PAIRS and r.of is not None}
    numbers, places = len(wanted), len(of)
    if not wanted:
        return
    for number, row in enumerate(report.rows):
        if number in wanted:
            if wanted[number] != row.where:
                break
            shown.rows[number] = row
        if row.where in of and isinstance(row, Row):
            shown.others[row.where] = row
        if len(shown.rows) == numbers and len(shown.others) == places:
            return
    raise DataError("the data has changed since it was audited", fix="audit it again")
