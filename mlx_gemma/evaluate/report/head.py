"""The head of a report: what was run, and bad answers by column, with their intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_gemma.data.visible import one_line, visible
from mlx_gemma.evaluate.paired import Comparison
from mlx_gemma.evaluate.report.plots import interval_plot, pick
from mlx_gemma.evaluate.results import Row
from mlx_gemma.evaluate.stats import Rate
from mlx_gemma.evaluate.suite import Suite
from mlx_gemma.evaluate.summary import Column, Side, counts
from mlx_gemma.html_page import Html, el, html

FOUND = {"better": "✓ better", "worse": "✗ worse", "cannot tell": "? cannot tell"}
SAID = ("suite", "version", "bad")  # elsewhere on the page
DIGEST = re.compile(r"(\w+:)?[0-9a-f]{16,}|none")  # of no use to the eye
Found = Mapping[tuple[str, str], Comparison]


def title(suite: Suite, sides: Sequence[Side]) -> str:
    """The document's title, one line."""
    names = " against ".join(one_line(side.name, 60) for side in reversed(sides))
    return f"{one_line(suite.header.name, 60)}: {names}"


def what_was_run(suite: Suite, sides: Sequence[Side], machine: Mapping[str, Any]) -> Html:
    """Suite, sides, their settings where they differ and where not, machine, time."""
    header, names = suite.header, [el("bdi", one_line(side.name, 200)) for side in sides]
    against = html(" against ", names[0], ", the base") if len(names) == 2 else ""
    facts = [
        (key, values) for key, values in _settings(sides) if key not in SAID and not all(map(DIGEST.fullmatch, values))
    ]
    facts.append(("answers", [f"{len(side.rows):,}" for side in sides]))
    facts.append(("seconds an answer", [f"{_seconds(side.rows):.2f}" for side in sides]))
    if any(side.perplexity is not None for side in sides):
        facts.append(("perplexity, held out", [_text(side.perplexity) for side in sides]))
    facts += [(key, [_text(value)]) for key, value in machine.items()]
    return html(
        el("p", "mlx-gemma eval", class_="eyebrow"),
        el("h1", one_line(header.name, 200), " ", el("small", f"version {header.version}")),
        el("p", visible(header.about), class_="about") if header.about else "",
        el("p", el("b", names[-1]), against, class_="headline"),
        el("dl", *(_fact(key, values, names) for key, values in facts), class_="facts"),
    )


def provenance(sides: Sequence[Side]) -> Html:
    """All settings, with the digests."""
    names = [el("bdi", one_line(side.name, 200)) for side in sides]
    return el("details", el("summary", "Everything this was made with"),
              el("dl", *(_fact(key, values, names) for key, values in _settings(sides)), class_="facts"))  # fmt: skip


def number(sides: Sequence[Side], by_column: Sequence[Sequence[Column]], found: Found) -> Html:
    """Bad answers: a figure for each column."""
    figures = [
        _figure(at, [columns[at] for columns in by_column], sides, found.get((column.name, "bad")))
        for at, column in enumerate(by_column[0])
    ]
    said = "Share of bad answers; the bar is its Wilson 95 % interval."
    return el("section", el("h2", "Bad answers"), el("p", said, class_="quiet"),
              el("div", *figures, class_="figures"), id="number")  # fmt: skip


def _figure(at: int, columns: Sequence[Column], sides: Sequence[Side], comparison: Comparison | None) -> Html:
    rates = [counts(column.rows, ())["bad"] for column in columns]
    lines = [
        el(
            "li",
            el("bdi", one_line(side.name, 60), class_="quiet") if len(sides) == 2 else "",
            el("span", f"{rate.value:.1%}", class_="share"),
            pick(f"{rate.count} of {rate.total}", verdict=f"{i} bad", column=at)
            if rate.count
            else f"0 of {rate.total}",
            el("span", _interval(rate), class_="quiet"),
            interval_plot(rate, i if len(sides) == 2 else 1),
        )
        for i, (side, rate) in enumerate(zip(sides, rates, strict=True))
    ]
    name = el("h3", visible(columns[0].name))
    if comparison is None:
        return el("div", name, el("ul", *lines), class_="block figure")
    low, high = comparison.interval
    said = f"{comparison.difference * 100:+.1f} points ({low * 100:+.1f} to {high * 100:+.1f})"
    good, bad = f"{comparison.first} became good", f"{comparison.second} became bad"
    changes = [
        pick(good, change="better", column=at) if comparison.first else good,
        ", ",
        pick(bad, change="worse", column=at) if comparison.second else bad,
    ]
    return el("div", name, el("p", badge(comparison), " ", said, class_="finding"), el("ul", *lines),
              el("p", *changes, "; ", words(comparison), class_="quiet"), class_="block figure")  # fmt: skip


def badge(comparison: Comparison) -> Html:
    """The finding, as a word with a sign."""
    return el("b", FOUND[comparison.verdict], class_=f"badge {comparison.verdict.replace(' ', '-')}")


def words(comparison: Comparison) -> str:
    """What a comparison says of itself behind its numbers: the test, and what could have been shown."""
    return str(comparison).partition("; ")[2]


def _interval(rate: Rate) -> str:
    low, high = rate.interval
    return f"{low:.1%} to {high:.1%}"


def _fact(key: str, values: Sequence[str], names: Sequence[Html]) -> Html:
    label = visible(str(key)).replace("_", " ")
    if len(set(values)) == 1:
        return el("div", el("dt", label), el("dd", values[0]))
    both = [el("dd", el("span", name, ": ", class_="quiet"), v) for name, v in zip(names, values, strict=True)]
    return el("div", el("dt", label), *both)


def _settings(sides: Sequence[Side]) -> list[tuple[str, list[str]]]:
    keys = dict.fromkeys(key for side in sides for key in side.settings)
    return [(key, [_text(side.settings.get(key)) for side in sides]) for key in keys]


def _text(value: object) -> str:
    """A setting for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} {_text(of)}" for key, of in value.items())
    elif isinstance(value, list | tuple):
        value = ", ".join(map(_text, value))
    return "none" if value is None or value == "" else visible(str(value))


def _seconds(rows: Sequence[Row]) -> float:
    return sum(row.seconds for row in rows) / len(rows)
