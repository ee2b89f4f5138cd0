"""The head of an audit's page: how many rows were read, kept and left out, and the one line that matters."""

from __future__ import annotations

from mlx_gemma.data.audit.page.choose import Shown
from mlx_gemma.data.audit.page.plots import share, stacked
from mlx_gemma.data.audit.page.text import clean
from mlx_gemma.data.audit.report import Report
from mlx_gemma.data.policy import CHECKS
from mlx_gemma.html_page import Html, el, html

NAMED = 3  # checks in the headline
REMARKS = 20


def label(check: str) -> str:
    """A check's name for people."""
    return {"python2": "Python 2"}.get(check, check.replace("_", " "))


def name(report: Report) -> str:
    """What was audited: the files, without their folders."""
    files = [clean(str(d["file"]).rpartition("/")[2], 80) for d in report.inputs.get("data", ())]
    return f"{files[0]} and {len(files) - 1:,} more files" if len(files) > 1 else next(iter(files), "a data set")


def summary(report: Report, shown: Shown) -> Html:
    """Name, headline, one bar of all rows, figures."""
    figures = (
        ("rows read", f"{report.read:,}", ""),
        ("kept", f"{report.kept_count:,}", share(report.kept_count, report.read)),
        ("left out", f"{report.rejected_count:,}", share(report.rejected_count, report.read)),
        ("found, but kept by the policy", f"{shown.flagged:,}", ""),
    )
    tiles = [el("div", el("dt", title), el("dd", number, " ", el("small", part))) for title, number, part in figures]
    order = sorted((c for c in CHECKS if shown.first[c]), key=lambda c: -shown.first[c])
    bar = stacked([("kept", "kept", report.kept_count), *((f"is-{c}", label(c), shown.first[c]) for c in order)])
    return html(
        el("p", "mlx-gemma audit", class_="eyebrow"),
        el("h1", name(report)),
        el("p", _headline(report), class_="headline broken" if report.breaches() else "headline"),
        bar,
        el("dl", *tiles, class_="figures"),
    )


def _headline(report: Report) -> str:
    if broken := report.breaches():
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        return f"Beyond a limit of the policy: {broken[0]}{more}."
    found = {check: n for check, n in report.found().items() if n}
    rejecting = {check: n for check, n in found.items() if report.policy.action(check) != "keep"}
    most = ", ".join(
        f"{label(c)} ({n:,})" for c, n in sorted((rejecting or found).items(), key=lambda f: -f[1])[:NAMED]
    )
    if report.rejected_count:
        return f"{share(report.rejected_count, report.read)} of the rows would not be trained. The most: {most}."
    return (
        f"All rows would be trained. Found in them: {most}."
        if found
        else "All rows would be trained; nothing was found."
    )


def limits(report: Report) -> Html:
    """The policy's limits, each with the share that was found."""
    found, lines = report.found(), []
    for check, limit in report.policy.limits.items():
        if report.action(check) == "off":
            lines.append(el("li", f"{label(check)}: not looked for", class_="quiet"))
            continue
        broken = found[check] > limit * report.read
        says = (
            f"{label(check)}: {found[check]:,} rows, {found[check] / max(1, report.read):.2%}; the limit is {limit:.2%}"
        )
        lines.append(el("li", el("b", "✗ beyond: " if broken else "✓ "), says, class_="broken" if broken else "held"))
    return _section("Limits", "limits", el("ul", *lines)) if lines else Html()


def remarks(report: Report) -> Html:
    """What concerns the set as a whole."""
    lines = [el("li", el("bdi", clean(line, 400))) for line in report.remarks[:REMARKS]]
    left = len(report.remarks) - REMARKS
    more = el("li", f"and {left:,} more", class_="quiet") if left > 0 else ""
    return _section("Not to be overlooked", "remarks", el("ul", *lines, more)) if lines else Html()


def _section(title: str, id_: str, *parts: str) -> Html:
    return el("section", el("h2", title), *parts, id=id_, class_="block")
