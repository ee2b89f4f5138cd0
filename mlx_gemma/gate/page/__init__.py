"""A calibrated gate as one HTML document that needs nothing else: `page(...)`.

page.html has the order of the parts; page.js only moves a slider over a table that is there without it. Queries are
shown with nothing hidden, secrets and personal data masked (data/audit/page/text.py). How it is kept from loading or
running anything: html_page.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mlx_gemma.data.audit.page.text import clean
from mlx_gemma.gate.calibrated import Calibrated
from mlx_gemma.gate.fit import Fit
from mlx_gemma.gate.outcomes import Outcome
from mlx_gemma.gate.tables import Routed, Step, alphas, routed, sent_of, steps
from mlx_gemma.html_page import Html, el, html, html_page

TEMPLATE = Path(__file__).with_name("page.html")
FAILURES = 60  # of each kind
QUERY = 300  # characters of a query

HELD_OUT = "Counted on the queries that did not choose score and order; intervals are Wilson's, 95 %."


def page(name: str, outcomes: Sequence[Outcome], fit: Fit, calibrated: Calibrated, drawings: Mapping[str, Html]) -> str:
    """The document, to be written as UTF-8.

    Args:
        name: of the specialist.
        drawings: SVG by the name of the figure, see figures.figures.
    """
    return html_page(
        TEMPLATE,
        title=html(f"Gate of {name}"),
        summary=_summary(name, fit, calibrated),
        routes=_routes(routed(outcomes, fit, fit.accept.threshold)),
        thresholds=_thresholds(steps(outcomes, fit)),
        alphas=_alphas(outcomes, calibrated),
        scores=_scores(fit),
        risk_coverage=drawings["risk_coverage"],
        histograms=drawings["scores"],
        reliability=drawings["reliability"],
        failures=_failures(outcomes, fit),
        provenance=_provenance(calibrated),
    )


def _table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> Html:
    """Of text or markup; a row is its class and its cells."""
    body = [el("tr", *(c if c.startswith("<td") else el("td", c) for c in cells), class_=kind) for kind, cells in rows]
    heads = el("thead", el("tr", *(el("th", title) for title in head)))
    return el("div", el("table", heads, el("tbody", *body)), class_="wide")


def _summary(name: str, fit: Fit, calibrated: Calibrated) -> Html:
    a, counts = fit.accept, fit.counts
    said = ("" if a.threshold is not None else "Calibrated: ") + fit.reason + "."
    exact = f" Exact upper bound at this threshold alone: {a.limit:.1%}." if a.threshold is not None else ""
    out = (
        f" Below {fit.out.threshold:.3f} it is shown to be bad more often than {calibrated.alpha:.1%}."
        if fit.out.threshold is not None
        else ""
    )
    note = (
        f"{counts['queries']:.0f} calibration queries; {counts['tested']:.0f} tested, one a group. The bound is about "
        "queries like these, in their mix, and says nothing of others."
    )
    return html(
        el("p", "mlx-gemma gate", class_="eyebrow"),
        el("h1", name),
        el("p", said + exact + out, class_="headline"),
        el("p", note, class_="quiet"),
    )


def _routes(rows: Sequence[Routed]) -> Html:
    suites, types = ([r for r in rows if (": " in r.name) == part] for part in (False, True))
    about = f"{HELD_OUT} Oracle: the better of both for every query. Types of a few queries only describe them."
    return html(
        _routed(suites),
        el("details", el("summary", f"{len(types)} types of query"), _routed(types)) if types else Html(),
        el("p", about, class_="quiet"),
    )


def _routed(rows: Sequence[Routed]) -> Html:
    head = ("queries", "sent", "specialist, of these", "base, of the rest", "gate", "base alone", "specialist alone")
    cells = []
    for r in rows:
        counts = [f"{rate.count}/{rate.total}" for rate in (r.sent, r.base, r.base_alone, r.specialist_alone, r.oracle)]
        cells.append(("", [clean(r.name, 60), counts[0], str(r.specialist), counts[1], str(r.gate), *counts[2:]]))
    return _table((*head, "oracle"), cells)


def _thresholds(rows: Sequence[Step]) -> Html:
    cells = [
        ("chosen" if r.accepted else "", [f"{r.threshold:.4f}", str(r.sent), str(r.specialist), str(r.gate)])
        for r in rows
    ]
    about = f"{HELD_OUT} Only the marked threshold carries the bound."
    head = ("threshold", "sent to the specialist", "bad there", "bad of all")
    return html(_table(head, cells), el("p", about, class_="quiet"))


def _alphas(outcomes: Sequence[Outcome], calibrated: Calibrated) -> Html:
    cells = []
    for alpha, fit, least in alphas(outcomes, calibrated):
        a = fit.accept
        found = (
            [fit.score, f"{a.threshold:.4f}", f"{a.accepted / a.tested:.0%}", f"{a.bad}/{a.accepted}"]
            if a.threshold is not None
            else ["", "none: all to the base", "0%", ""]
        )
        cells.append(("chosen" if alpha == calibrated.alpha else "", [f"{alpha:.0%}", *found, str(least)]))
    head = ("alpha", "score", "threshold", "sent, of the tested", "bad of these", "tested at the least, none bad")
    about = (
        f"Confidence {1 - calibrated.delta:.0%} for each row taken alone; whoever picks the best of the rows after "
        "looking has less. Choose alpha first."
    )
    return html(_table(head, cells), el("p", about, class_="quiet"))


def _scores(fit: Fit) -> Html:
    cells = []
    for c in sorted(fit.compared.values(), key=lambda c: c.chose):
        sent = f"{c.bound.accepted / c.bound.tested:.0%}" if c.bound.threshold is not None else "0%"
        ranks = "-" if c.auroc is None else str(c.auroc)
        kind = "chosen" if c.name == fit.score else ""
        cells.append((kind, [c.name, ranks, f"{c.chose:.3f}", f"{c.curve.area:.3f}", sent]))
    about = (
        "Area: under the risk-coverage curve, lower is better; the choosing part's decides. The mean log-probabilities "
        "of the models' first tokens (dashed) take the weights, so no gate routes by them."
    )
    head = ("score", "AUROC of a good output", "area, choosing part", "area, testing part", "it would send")
    return html(_table(head, cells), el("p", about, class_="quiet"))


def _failures(outcomes: Sequence[Outcome], fit: Fit) -> Html:
    sent = sent_of(outcomes, fit.score, fit.accept.threshold)
    both = list(zip(outcomes, sent.tolist(), strict=True))
    kinds = (
        ("Sent to the specialist, and bad", [o for o, there in both if there and o.specialist_bad]),
        ("Sent to the base, and bad", [o for o, there in both if not there and o.base_bad]),
        ("Sent to the base, where only the specialist is good", [o for o, there in both if not there and _missed(o)]),
    )
    parts = []
    for title, rows in kinds:
        shown = sorted(rows, key=lambda o: -o.scores[fit.score])[:FAILURES]
        cells = [
            (
                "",
                [
                    clean(f"{o.suite} {o.id}", 80),
                    f"{o.scores[fit.score]:.3f}",
                    ", ".join(o.specialist_verdicts) or "good",
                    ", ".join(o.base_verdicts) or "good",
                    el("td", clean(o.query, QUERY), class_="text"),
                ],
            )
            for o in shown
        ]
        head = f"{title}: {len(rows)}" + (f", {FAILURES} shown" if len(rows) > FAILURES else "")
        parts.append(
            el("details", el("summary", head), _table(("query", fit.score, "specialist", "base", "text"), cells))
        )
    return html(*parts, el("p", "Of all calibration queries, highest scores first.", class_="quiet"))


def _missed(outcome: Outcome) -> bool:
    return outcome.base_bad and not outcome.specialist_bad


def _provenance(calibrated: Calibrated) -> Html:
    suites = "; ".join(f"{s['name']} ({s['items']} items, {str(s['digest'])[:12]})" for s in calibrated.suites)
    digests = ", ".join(f"{name} {digest[:12]}" for name, digest in sorted(calibrated.digests.items()))
    return el(
        "p", f"alpha {calibrated.alpha:g}, delta {calibrated.delta:g}, seed {calibrated.seed}. {suites}. {digests}."
    )
