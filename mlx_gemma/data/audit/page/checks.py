"""Every check of an audit, the one that leaves out most first: counts, kinds of thing found, and rows to open."""

from __future__ import annotations

from mlx_gemma.data.audit.page.choose import NAMES, Shown
from mlx_gemma.data.audit.page.plots import bars, share
from mlx_gemma.data.audit.page.rows import cluster, example
from mlx_gemma.data.audit.page.summary import label
from mlx_gemma.data.audit.page.text import clean
from mlx_gemma.data.audit.report import Report
from mlx_gemma.data.policy import CHECKS, FilterPolicy
from mlx_gemma.html_page import Html, el, html

ROOM = 1_200_000  # bytes for all examples
CLUSTER_ROOM = 200_000
PREVIEW = 4  # kinds of thing found that a closed card names


def checks(report: Report, shown: Shown) -> Html:
    """A card for each check that found something, and a line for those that found nothing."""
    counts = report.found()
    found = sorted((c for c in CHECKS if counts[c]), key=lambda c: (report.policy.action(c) == "keep", -counts[c]))
    cards = [_card(report, shown, check, ROOM // len(found)) for check in found]
    unasked = [label(c) for c in CHECKS if not counts[c] and report.action(c) == "off"]
    nothing = [label(c) for c in CHECKS if not counts[c] and report.action(c) != "off"]
    return html(
        *cards,
        el("p", "Nothing found by: ", el("b", ", ".join(nothing)), ".", class_="quiet") if nothing else "",
        el("p", "Not looked for: ", el("b", ", ".join(unasked)), ".", class_="quiet") if unasked else "",
    )


def _card(report: Report, shown: Shown, check: str, room: int) -> Html:
    n, action, names = report.found()[check], report.policy.action(check), report.names().get(check, {})
    most = ", ".join(f"{clean(name, 40)} {k:,}" for name, k in list(names.items())[:PREVIEW])
    bar = el("rect", width=f"{100 * n / report.read:.2f}%", height="100%", rx=2, class_=f"is-{check}")
    head = el(
        "summary",
        el("h3", label(check)),
        el("span", action, class_=f"action {action}"),
        el("div", el("svg", bar, class_="bar", aria_hidden="true"), el("bdi", most, class_="most")),
        el("span", f"{n:,}", el("span", share(n, report.read), class_="quiet"), class_="numbers"),
    )
    rows = _within([example(found, check, shown) for found in shown.examples[check]], room)
    meaning = FilterPolicy.model_fields[check].description or ""
    told = f"{len(rows)} of {n:,} rows, of as many kinds as there is room for" if len(rows) < n else f"all {n:,} rows"
    return el(
        "details",
        head,
        el("p", f"{meaning[:1].upper()}{meaning[1:]}.", class_="quiet"),
        bars(names.items(), n, pick=check) if names else "",
        el("h4", f"Rows ({told})"),
        *rows,
        class_="check block",
        id=f"check-{check}",
        data_check=check,
    )


def filters(report: Report, shown: Shown) -> Html:
    """What the choice of checks offers: every check, and its kinds of thing found."""
    options = [el("option", "every check", value="")]
    for check in (c for c in CHECKS if shown.examples.get(c)):
        options.append(el("option", label(check), value=check))
        names = [clean(name, 80) for name in list(report.names().get(check, {}))[:NAMES]]
        options += [el("option", f"\xa0\xa0{label(check)}: {name}", value=f"{check}\n{name}") for name in names]
    return html(*options)


def clusters(shown: Shown) -> Html:
    """The rows with the most duplicates."""
    held = _within([cluster(one, shown) for one in shown.clusters if one.where in shown.others], CLUSTER_ROOM)
    if not held:
        return Html()
    says = (
        f"{shown.repeated:,} rows kept have duplicates, at most {shown.clusters[0].size:,} each. Those with the most:"
    )
    return el("section", el("h2", "Duplicates"), el("p", says, class_="quiet"), *held, id="clusters", class_="block")


def _within(parts: list[Html], room: int) -> list[Html]:
    """As many of them, from the first on, as have room."""
    kept = []
    for part in parts:
        room -= len(part.encode())
        if room < 0:
            break
        kept.append(part)
    return kept
