"""An audit as one HTML document that needs nothing else: `page(report)`.

    choose.py     what is shown: some rows of every check, the largest clusters
    summary.py    the head: what was read, kept and left out, limits, what should not be overlooked
    checks.py     every check with its counts and rows
    splits.py     what is in two splits
    rows.py       a row, with what was found in it marked
    balance.py    what the set is made of, lengths, rendered samples, digests
    plots.py      bars and boxes, as HTML and SVG
    text.py       text made safe to show: nothing hidden, secrets and personal data masked
    page.html     with page.css and page.js, which only filters: everything is there without it

At most 2 MB, whatever the number and length of the rows; 0.2 MB for the project's own raw set. How it is kept from
loading or running anything: html_page.py.
"""

from __future__ import annotations

from pathlib import Path

from mlx_gemma.data.audit.page.balance import balance, lengths, provenance, samples
from mlx_gemma.data.audit.page.checks import checks, clusters, filters
from mlx_gemma.data.audit.page.choose import choose
from mlx_gemma.data.audit.page.splits import splits
from mlx_gemma.data.audit.page.summary import limits, name, remarks, summary
from mlx_gemma.data.audit.report import Report
from mlx_gemma.html_page import html, html_page

TEMPLATE = Path(__file__).with_name("page.html")


def page(report: Report) -> str:
    """The document, to be written as UTF-8. Cost: see choose.py; the rows shown are read again.

    Raises:
        DataError: the rows are read from the user's files again, and these are no longer what they were.
    """
    shown = choose(report)
    return html_page(
        TEMPLATE,
        title=html(f"Audit of {name(report)}"),
        summary=summary(report, shown),
        limits=limits(report),
        remarks=remarks(report),
        filters=filters(report, shown),
        checks=checks(report, shown),
        clusters=clusters(shown),
        splits=splits(report),
        lengths=lengths(report),
        balance=balance(report),
        samples=samples(report),
        provenance=provenance(report),
    )
