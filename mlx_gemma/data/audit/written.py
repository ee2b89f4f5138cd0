"""A report as files: audit.json, the kept rows, the rejected ones with their reasons; none is held in memory."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma.data.audit.findings import Found
from mlx_gemma.data.formats import Row
from mlx_gemma.data.reason import Reason
from mlx_gemma.data.write import json_line, whole_file

if TYPE_CHECKING:
    from mlx_gemma.data.audit.report import Report


def as_json(report: Report) -> dict[str, Any]:
    """See `Report.as_json`."""
    return _head(report) | {name: list(rows) for name, rows in _lists(report)}


def write_json(report: Report, path: Path) -> None:
    """See `Report.write_json`."""
    with whole_file(path) as file:
        file.write(json.dumps(_head(report), indent=1, ensure_ascii=False, default=str)[:-2])
        for name, rows in _lists(report):
            file.write(f',\n "{name}": [')
            for i, row in enumerate(rows):
                file.write(("," if i else "") + "\n  " + json_line(row))
            file.write("\n ]")
        file.write("\n}\n")


def write(report: Report, clean: Path, rejected: Path) -> None:
    """See `Report.write`."""
    with ExitStack() as stack:
        kept, left_out = (stack.enter_context(whole_file(path)) for path in (clean, rejected))
        for judged in report.judged():
            row = judged.row.as_json() if isinstance(judged.row, Row) else {}
            if report.policy.rejects(judged.reasons):
                told = {"where": judged.row.where, "reasons": [_reason(r) for r in judged.reasons]}
                left_out.write(json_line(told | row) + "\n")
            else:
                kept.write(json_line(row) + "\n")


def _head(report: Report) -> dict[str, Any]:
    names = report.names()
    checks = [
        {"check": check, "rows": n, "action": action, "example": example}
        | {"names": names.get(check, {}), "examples": report.examples(check)}
        for check, n, action, example in report.table()
    ]
    return {
        "read": report.read,
        "kept": report.kept_count,
        "rejected": report.rejected_count,
        "python": platform.python_version(),  # whose grammar says what is broken
        "policy": report.policy.model_dump(mode="json"),
        "inputs": report.inputs,
        "breaches": report.breaches(),
        "remarks": report.remarks,
        "seconds": round(report.seconds, 1),
        "checks": checks,
        **report.whole,
    }


def _lists(report: Report) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    rejects = report.policy.rejects
    yield "rejected_rows", (_reasons(f) for f in report.findings if rejects(f.reasons))
    yield "flagged_rows", (_reasons(f) for f in report.findings if not rejects(f.reasons))


def _reasons(found: Found) -> dict[str, Any]:
    return {"where": found.where, "reasons": [_reason(r) for r in found.reasons]}


def _reason(r: Reason) -> dict[str, str]:
    return (
        {"check": r.check, "message": r.message} | ({"name": r.name} if r.name else {}) | ({"of": r.of} if r.of else {})
    )
