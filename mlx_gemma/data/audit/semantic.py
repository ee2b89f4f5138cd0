"""A later pass, where the policy asks for it: kept rows whose prompts ask the same in other words.

Rows whose prompts are equal are of one meaning, whatever their answers: of several solutions to one task one is kept.
Memory: the kept rows' prompts, and what checks/semantic.py says.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from mlx_gemma.data.audit.findings import Found
from mlx_gemma.data.audit.report import Report
from mlx_gemma.data.audit.spool import Rows
from mlx_gemma.data.checks.semantic import semantic_duplicates
from mlx_gemma.data.formats import Row


def asked_before(report: Report, rows: Rows, threshold: float) -> Iterator[Found]:
    """Every kept row that asks what an earlier kept one asks, in order; `rows` are the report's."""
    numbers, prompts = array("q"), list[str]()
    for number, judged in enumerate(report.judged()):
        if isinstance(judged.row, Row) and not report.policy.rejects(judged.reasons):
            numbers.append(number)
            prompts.append(judged.row.prompt)
    for twin in semantic_duplicates(prompts, threshold):
        reason = twin.reason(rows[numbers[twin.of]].where)
        yield Found(numbers[twin.row], rows[numbers[twin.row]].where, (reason,))
