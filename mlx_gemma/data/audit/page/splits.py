"""What is in two splits of the data, where the audit had several to compare."""

from __future__ import annotations

from mlx_gemma.data.audit.page.plots import bars
from mlx_gemma.data.audit.page.rows import place
from mlx_gemma.data.audit.page.text import clean
from mlx_gemma.data.audit.report import Report
from mlx_gemma.html_page import Html, el, html

LISTED = 20  # leaks of two splits


def splits(report: Report) -> Html:
    """For every two splits how many rows of one the other gives away, and how; the first of them, with both places."""
    found = report.whole.get("splits")
    if not found:
        return Html()
    rows = found["rows"]
    sizes = ", ".join(f"{name} {n:,}" for name, n in rows.items())
    parts = []
    for split, of in dict.fromkeys((leak["split"], leak["of_split"]) for leak in found["leaks"]):
        hows = {x["how"]: x["found"] for x in found["leaks"] if (x["split"], x["of_split"]) == (split, of)}
        families = hows.pop("family", 0)
        told = [f"{sum(hows.values()):,} of {rows[split]:,} rows of {split}"] if hows else []
        told += [f"{families:,} families"] if families else []
        first = [x for x in found["listed"] if (x["split"], x["of_split"]) == (split, of)][:LISTED]
        listed = [
            el(
                "li",
                el("span", place(x["where"]), class_="where", title=clean(x["where"])),
                " ",
                _message(x["message"]),
            )
            for x in first
        ]
        parts.append(
            el(
                "details",
                el("summary", f"{split} and {of}: ", el("b", " and ".join(told)), " in both", class_="message"),
                bars(hows.items(), rows[split]) if hows else "",
                el("ul", *listed, class_="members"),
                class_="cluster",
            )
        )
    says = f"Rows compared: {sizes}. " + ("What is in two of them:" if parts else "Nothing is in two of them.")
    head = el("h2", "Splits"), el("p", says, class_="quiet")
    return html(el("section", *head, *parts, id="splits", class_="block"))


def _message(text: str) -> Html:
    return el("bdi", clean(text, 400))
