"""What is in a data set, what would be trained on, and what not, with the reason for every row left out.

    report = audit(scan_rows("raw.jsonl"), FilterPolicy(contamination=["evals/python3.jsonl"]))
    print("\n".join(report.summary_lines()))
    report.write("clean.jsonl", "rejected.jsonl")

Every check has the name of its key in the policy. A row is first judged alone (its code, its likeness to eval prompts);
only rows that pass are compared with the rows kept before them, so that a fault never stands in for a good row.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_gemma.data.contamination import EvalPrompts, read_eval_prompts
from mlx_gemma.data.duplicates import ExactIndex, NearIndex, row_shingles
from mlx_gemma.data.formats import BadRow, Row
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.data.python_source import classify
from mlx_gemma.data.write import write_jsonl

CHECKS = ("malformed", "python2", "broken", "truncated", "contamination", "exact_duplicates", "near_duplicates")


@dataclass(frozen=True)
class Reason:
    """What one check found in one row; `of` is the `where` of the row that it repeats."""

    check: str
    message: str
    of: str | None = None


@dataclass(frozen=True)
class Judged:
    """A row and everything found in it."""

    row: Row | BadRow
    reasons: tuple[Reason, ...]


@dataclass
class Report:
    """The result: kept + rejected = read. A row with several reasons counts once in `rejected`, once in every check."""

    policy: FilterPolicy
    kept: list[Row] = field(default_factory=list)
    rejected: list[Judged] = field(default_factory=list)
    flagged: list[Judged] = field(default_factory=list)  # found, but kept because the policy says so

    @property
    def read(self) -> int:
        return len(self.kept) + len(self.rejected)

    def found(self) -> dict[str, int]:
        """Rows per check, whatever was done about them; every check is listed, in CHECKS order."""
        counts = Counter(c for j in self.rejected + self.flagged for c in {r.check for r in j.reasons})
        return {check: counts[check] for check in CHECKS}

    def clusters(self) -> dict[str, list[str]]:
        """Kept row -> the rows left out as its duplicates, by their `where`."""
        clusters: dict[str, list[str]] = {}
        for judged in self.rejected:
            for reason in judged.reasons:
                if reason.of is not None:
                    clusters.setdefault(reason.of, []).append(judged.row.where)
        return clusters

    def table(self) -> list[tuple[str, int, str, str]]:
        """(check, rows found, what is done about them, an example) of every check."""
        examples: dict[str, str] = {}
        for judged in self.rejected + self.flagged:
            for reason in judged.reasons:
                examples.setdefault(reason.check, f"{judged.row.where}: {reason.message}")
        actions = {check: _action(self.policy, check) for check in CHECKS}
        return [(check, n, actions[check], examples.get(check, "")) for check, n in self.found().items()]

    def summary_lines(self) -> list[str]:
        lines = [f"{check:<17}{n:>7}  {action:<7}  {example[:100]}" for check, n, action, example in self.table()]
        head = f"{self.read} rows read, {len(self.kept)} kept, {len(self.rejected)} rejected"
        return [head, *lines]

    def as_json(self) -> dict[str, Any]:
        """Counts, what was done, and the place and reasons of every row with a fault; as a run folder keeps it."""
        checks = [dict(zip(("check", "rows", "action", "example"), line, strict=True)) for line in self.table()]
        return {
            "read": self.read,
            "kept": len(self.kept),
            "rejected": len(self.rejected),
            "python": platform.python_version(),  # whose grammar says what is broken
            "checks": checks,
            "rejected_rows": [_reasons(j) for j in self.rejected],
            "flagged_rows": [_reasons(j) for j in self.flagged],
        }

    def write(self, clean: str | Path, rejected: str | Path) -> None:
        """Write the kept rows, and the rejected ones with their reasons; each file appears whole or not at all."""
        write_jsonl(Path(clean), (row.as_json() for row in self.kept))
        write_jsonl(Path(rejected), map(_as_json, self.rejected))


def audit(rows: Iterable[Row | BadRow], policy: FilterPolicy | None = None, against: Iterable[Path] = ()) -> Report:
    """Judge every row. About 1 ms a row of this project's size; memory: all rows and the shingles of those kept.

    Args:
        rows: from `read_rows`, or from `scan_rows` where bad rows shall be reported rather than stop the audit.
        policy: what is rejected; None for the defaults.
        against: eval files besides those the policy names.

    Raises:
        DataError: a malformed row where the policy says `malformed: stop`; an eval file that cannot be read.
    """
    policy = policy or FilterPolicy()
    prompts = read_eval_prompts([*policy.contamination, *against])
    checks = _Checks(policy, EvalPrompts(prompts) if prompts else None)
    report = Report(policy)
    for row in rows:
        if isinstance(row, BadRow) and policy.malformed == "stop":
            raise row.error()
        reasons = tuple(checks.reasons(row))
        if isinstance(row, BadRow) or any(_action(policy, r.check) == "reject" for r in reasons):
            report.rejected.append(Judged(row, reasons))
            continue
        report.kept.append(row)
        if reasons:
            report.flagged.append(Judged(row, reasons))
    return report


class _Checks:
    """The checks with what they remember from row to row."""

    def __init__(self, policy: FilterPolicy, prompts: EvalPrompts | None) -> None:
        self.policy, self.prompts = policy, prompts
        self.exact = ExactIndex()
        self.near = None if policy.near_duplicates == "keep" else NearIndex(policy.near_duplicates)

    def reasons(self, row: Row | BadRow) -> Iterator[Reason]:
        if isinstance(row, BadRow):
            yield Reason("malformed", f"{row.what}; {row.fix}")
            return
        alone = list(self._alone(row))
        yield from alone
        if not any(_action(self.policy, r.check) == "reject" for r in alone):
            yield from self._among_kept(row)

    def _alone(self, row: Row) -> Iterator[Reason]:
        verdict = classify(row.answer)
        if verdict.kind in ("python2", "broken", "truncated"):
            yield Reason(verdict.kind, str(verdict))
        if self.prompts is not None and (leak := self.prompts.find(row)):
            yield Reason("contamination", leak)

    def _among_kept(self, row: Row) -> Iterator[Reason]:
        if first := self.exact.find(row.prompt, row.answer):
            yield Reason("exact_duplicates", f"repeats {first}", first)
            return
        shingles = row_shingles(row) if self.near is not None else frozenset()
        if self.near is not None and (match := self.near.find(shingles)):
            yield Reason("near_duplicates", f"{match.similarity:.2f} similar to {match.where}", match.where)
            return
        self.exact.add(row.where, row.prompt, row.answer)
        if self.near is not None:
            self.near.add(row.where, shingles)


def _action(policy: FilterPolicy, check: str) -> str:
    setting = getattr(policy, check)
    return setting if setting in ("keep", "stop") else "reject"


def _reasons(judged: Judged) -> dict[str, Any]:
    reasons = [{"check": r.check, "message": r.message} | ({"of": r.of} if r.of else {}) for r in judged.reasons]
    return {"where": judged.row.where, "reasons": reasons}


def _as_json(judged: Judged) -> dict[str, Any]:
    return _reasons(judged) | (judged.row.as_json() if isinstance(judged.row, Row) else {})
