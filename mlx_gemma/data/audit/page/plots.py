"""Plots as HTML and inline SVG that keep their letters' size on any screen: all places are shares of the width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from mlx_gemma.data.audit.page.text import clean
from mlx_gemma.html_page import Html, el, html

LINES = 12  # of a plot
SPREAD = 30  # where the longest is so many times the typical length, the scale is logarithmic


def share(part: float, whole: float) -> str:
    """In percent: a digit behind the point, two where that would be 0.0."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.2f} %" if 0 < percent < 0.1 else f"{percent:.1f} %"


def stacked(parts: Sequence[tuple[str, str, int]]) -> Html:
    """One bar of (class, label, rows) beside one another, and what is what."""
    parts, total, at, boxes = [p for p in parts if p[2]], sum(n for _, _, n in parts), 0.0, []
    for kind, label, n in parts:
        title = el("title", f"{label}: {n:,} rows, {share(n, total)}")
        boxes.append(el("rect", title, x=_percent(at, total), width=_percent(n, total), height="100%", class_=kind))
        at += n
    keys = [
        el("li", el("svg", el("rect", width="100%", height="100%", class_=kind), class_="key", aria_hidden="true"),
           f" {label} ", el("b", f"{n:,}"))
        for kind, label, n in parts
    ]  # fmt: skip
    return html(el("svg", *boxes, class_="stacked", role="img", aria_label="all rows"), el("ul", *keys, class_="keys"))


def bars(counts: Iterable[tuple[str, int]], total: int, *, pick: str = "") -> Html:
    """A line for each name: a bar, how many of `total` rows, and their share.

    Args:
        counts: the most frequent first; what is beyond LINES is summed up.
        pick: the check whose rows a click on a name leaves.
    """
    counts = list(counts)
    longest = max((n for _, n in counts), default=1)
    lines = []
    for name, n in counts[:LINES]:
        shown = clean(name, 80) or "(empty)"
        picks = {"data_pick": f"{pick}\n{clean(name, 80)}"} if pick else {}
        numbers = el("span", f"{n:,}", el("span", share(n, total), class_="quiet"), class_="numbers")
        bar = el("rect", width=_percent(n, longest), height="100%", rx=2)
        lines.append(el("li", el("span", shown, class_="name", title=shown, **picks), _plot("bar", bar), numbers))
    left = len(counts) - LINES
    more = el("li", f"and {left:,} more", class_="quiet") if left > 0 else ""
    return el("ul", *lines, more, class_="bars")


def boxes(groups: Sequence[tuple[str, Mapping[str, float]]], cut: int | None = None) -> Html:
    """A line for each group of lengths: its least to its greatest percentile, the middle half, and the median.

    Args:
        groups: percentiles by `p5`, `p25`, `p50`, `p75`, `p95` and `p99`.
        cut: the length from which on everything is lost.
    """
    groups = [(name, at) for name, at in groups if at][: LINES + 1]
    if not groups:
        return Html()
    longest = max(at["p99"] for _, at in groups)
    near = cut is not None and cut <= 4 * longest
    top = 1.05 * max(longest, cut if cut and near else 0, 1)
    log = top > SPREAD * max(1, groups[0][1]["p50"])

    def x(value: float) -> str:
        return _percent(math.log1p(min(value, top)), math.log1p(top)) if log else _percent(min(value, top), top)

    line = [el("line", x1=x(cut), x2=x(cut), y1=0, y2="100%", class_="cut")] if cut and near else []
    lines = [
        el("li", el("span", clean(name, 80), class_="name"), _plot("box", _box(at, x), *line), _numbers(at))
        for name, at in groups
    ]
    ticks = [el("text", f"{t:,}", x=x(t), y=12, text_anchor="middle" if t else "start") for t in _ticks(top, log)]
    axis = el("li", el("span", "logarithmic" if log else "", class_="name quiet"), _plot("axis", *ticks), el("span"))
    return el("ul", *lines, axis, class_="bars boxes")


def columns(bins: Sequence[tuple[int, int, int]], cut: int | None = None) -> Html:
    """A histogram: a column for each bin of (first, last, rows), all of one width but the last, which may be open.

    Args:
        cut: the length from which on everything is lost.
    """
    most, width = max((n for *_, n in bins), default=0), bins[0][1] + 1 if bins else 1
    parts = []
    for i, (first, last, n) in enumerate(bins):
        title = el("title", f"{first:,} to {last:,}: {n:,} rows")
        box = {"x": _percent(i + 0.05, len(bins)), "width": _percent(0.9, len(bins))}
        high = max(100 * n / most, 1) if n else 0
        parts.append(el("rect", title, y=f"{100 - high:.2f}%", height=f"{high:.2f}%", **box))
    if cut is not None and cut < width * len(bins):
        parts.append(el("line", x1=(x := _percent(cut / width, len(bins))), x2=x, y1=0, y2="100%", class_="cut"))
    every = max(1, -(-len(bins) // 6))
    ticks = [
        el("text", f"{bins[i][0]:,}", x=_percent(i, len(bins)), y=12, text_anchor="middle" if i else "start")
        for i in range(0, len(bins), every)
    ]
    return html(_plot("columns", *parts), _plot("axis", *ticks)) if bins else Html()


def _box(at: Mapping[str, float], x: object) -> Html:
    assert callable(x)
    width = f"{float(x(at['p75'])[:-1]) - float(x(at['p25'])[:-1]):.2f}%"
    return html(
        el("line", x1=x(at["p5"]), x2=x(at["p99"]), y1="50%", y2="50%", class_="whisker"),
        el("rect", x=x(at["p25"]), width=width, y="20%", height="60%", rx=2),
        el("line", x1=x(at["p50"]), x2=x(at["p50"]), y1="8%", y2="92%", class_="median"),
    )


def _numbers(at: Mapping[str, float]) -> Html:
    most = at.get("max", at.get("p100", at["p99"]))
    return el("span", *(el("span", f"{int(n):,}") for n in (at["p50"], at["p99"], most)), class_="numbers")


def _ticks(top: float, log: bool) -> list[int]:
    if log:
        return [0, *(10**i for i in range(1, int(math.log10(top)) + 1))]
    step = 10 ** math.floor(math.log10(max(top / 2, 1)))
    step = next(s for s in (step // 2, step, 2 * step, 5 * step) if s and top / s <= 6)
    return list(range(0, int(0.97 * top) + 1, int(step)))


def _plot(kind: str, *children: str) -> Html:
    return el("svg", *children, class_=kind, aria_hidden="true")


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole if whole else 0:.2f}%"
