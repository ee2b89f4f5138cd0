"""An evaluation as one HTML document that needs nothing else: `report(suite, sides, machine)`.

    head.py       what was run, and the one number: bad answers, by column
    tables.py     every verdict, before and after; types of query, the worst first
    diagram.py    confidence against correctness: a reliability diagram, as SVG
    answers.py    all answers with their tokens, as data
    page.html     with page.css and page.js, which lists, filters and opens the answers; the rest is there without it

How it is kept from loading or running anything: html_page.py. Answers, prompts and reasons are others' text: in markup
they are escaped and made visible (data/visible.py), in the data nothing of them ends a script.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.report.answers import answers
from mlx_gemma.evaluate.report.diagram import calibration
from mlx_gemma.evaluate.report.head import number, provenance, title, what_was_run
from mlx_gemma.evaluate.report.tables import types_table, verdicts_table
from mlx_gemma.evaluate.results import Row
from mlx_gemma.evaluate.suite import Suite
from mlx_gemma.evaluate.summary import Side, columns, compared
from mlx_gemma.html_page import html, html_page

TEMPLATE = Path(__file__).with_name("page.html")


def report(suite: Suite, sides: Sequence[Side], machine: Mapping[str, Any]) -> str:
    """The document, to be written as UTF-8.

    Args:
        suite: gives the conversations, and what an answer had to do.
        sides: one, or two that answered the same items: the base of the comparison, and the model.
        machine: what it ran on, for people.

    Raises:
        UserError: no answers, more than two sides, sides that answered other items, or a probability that is none.
    """
    if not 0 < len(sides) <= 2 or not all(side.rows for side in sides):
        raise UserError("a report needs the answers of one model or of two")
    for side in sides:
        for row in side.rows:
            _check(row)
    found = compared(sides[0].rows, sides[1].rows) if len(sides) == 2 else {}
    by_column = [columns(side.rows) for side in sides]
    return html_page(
        TEMPLATE,
        title=html(title(suite, sides)),
        run=what_was_run(suite, sides, machine),
        number=number(sides, by_column, found),
        verdicts=verdicts_table(suite, sides, by_column, found),
        types=types_table(sides, by_column),
        calibration=calibration(sides),
        provenance=provenance(sides),
        data=answers(suite, sides, by_column),
    )


def _check(row: Row) -> None:
    numbers = [row.logprob, row.decision, *(p for _, p, rivals in row.tokens for p in (p, *(r for _, r in rivals)))]
    if not all(isinstance(p, int | float) and math.isfinite(p) for p in numbers):
        raise UserError("a probability is not a number", where=row.id, fix="check the model's weights")
