"""Confidence against correctness: a reliability diagram, as SVG, and the same in numbers.

Points on the diagonal are calibrated, below it overconfident. Each carries its Wilson 95 % interval; the bars beneath
count the answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_gemma.data.visible import visible
from mlx_gemma.evaluate.calibration import Calibration
from mlx_gemma.evaluate.calibration_error import Bin
from mlx_gemma.evaluate.summary import Side, confidences
from mlx_gemma.html_page import Html, el, html

ABOUT = {
    "mean token": "The geometric mean of its tokens' probabilities",
    "least certain token": "The probability of its least certain token, where the answer was decided",
}
LEFT, TOP, WIDE, HIGH = 38, 22, 274, 220  # of the plot, in the picture's units
COUNTS, FOOT = 36, 256  # height of the bars beneath, and where they stand


def calibration(sides: Sequence[Side]) -> Html:
    """A diagram for each kind of confidence, with both sides in it. Cost: `calibrate`, twice a side."""
    found = [confidences(side.rows) for side in sides]
    names = [visible(side.name) for side in sides]
    figures = [_figure(kind, list(zip(names, (of[kind] for of in found), strict=True))) for kind in found[0]]
    said = (
        "The model's own confidence in an answer against the share of good ones. On the dashed line the two agree; "
        "below it the model is too sure. Bars are Wilson 95 % intervals; below, how many answers there are."
    )
    return el("section", el("h2", "Does it know when it is right?"), el("p", said, class_="quiet"),
              el("div", *figures, class_="grid"), id="calibration")  # fmt: skip


def _figure(kind: str, found: Sequence[tuple[str, Calibration]]) -> Html:
    keys = [el("li", _key(side), " ", el("bdi", name)) for side, (name, _) in enumerate(found)]
    said = [el("p", el("bdi", el("b", name), ": ") if len(found) == 2 else "", str(of)) for name, of in found]
    return el(
        "figure",
        el("figcaption", el("b", kind[0].upper() + kind[1:]), el("span", ABOUT[kind], class_="quiet")),
        _diagram(kind, [of for _, of in found]),
        el("ul", *keys, class_="keys") if len(found) == 2 else "",
        *said,
        el("details", el("summary", "The same in numbers"), *(_bins(name, of) for name, of in found)),
        class_="block",
    )


def _diagram(kind: str, found: Sequence[Calibration]) -> Html:
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    grid = [
        html(
            _line(0, tick, 1, tick, "rule"),
            el("text", f"{tick:.0%}", x=LEFT - 5, y=_y(tick) + 4, text_anchor="end"),
            el("text", f"{tick:.0%}", x=_x(tick), y=FOOT + COUNTS + 15, text_anchor="end" if tick == 1 else "middle"),
        )
        for tick in ticks
    ]
    bins = [calibration.equal_width.bins for calibration in found]
    most = max(b.correct.total for of in bins for b in of)
    marks = [_series(at, len(bins), of, most) for at, of in enumerate(bins)]
    label = f"Reliability diagram, {kind}; its numbers are beneath"
    return el(
        "svg",
        *grid,
        _line(0, 0, 1, 1, "diagonal"),
        *marks,
        el("text", "good answers", x=LEFT - 30, y=TOP - 10),
        el("text", "confidence", x=LEFT + WIDE / 2, y=FOOT + COUNTS + 30, text_anchor="middle"),
        el("text", f"{most:,}", x=LEFT - 5, y=FOOT + 9, text_anchor="end"),
        class_="diagram",
        viewBox=f"0 0 {LEFT + WIDE + 8} {FOOT + COUNTS + 36}",
        role="img",
        aria_label=label,
    )


def _series(at: int, of: int, bins: Sequence[Bin], most: int) -> Html:
    """One side's; a side alone looks as the second one does."""
    parts, side = [], at + 2 - of
    points = " ".join(f"{_x(b.confidence):.1f},{_y(b.correct.value):.1f}" for b in bins)
    parts.append(el("polyline", points=points, class_="joined"))
    for b in bins:
        low, high = b.correct.interval
        wide = (b.high - b.low) * WIDE / of
        tall = max(1.0, COUNTS * b.correct.total / most)
        box = {"x": f"{_x(b.low) + at * wide + 0.5:.1f}", "width": f"{wide - 1:.1f}"}
        parts.append(_line(b.confidence, low, b.confidence, high, "whisker"))
        parts.append(el("rect", y=f"{FOOT + COUNTS - tall:.1f}", height=f"{tall:.1f}", class_="count", **box))
        parts.append(_mark(side, _x(b.confidence), _y(b.correct.value), el("title", _said(b))))
    return el("g", *parts, class_=f"side-{side}")


def _mark(side: int, x: float, y: float, *inside: str) -> Html:
    """The base is a hollow square, the model a full circle."""
    if side == 0:
        return el("rect", *inside, x=f"{x - 4:.1f}", y=f"{y - 4:.1f}", width=8, height=8, class_="mark")
    return el("circle", *inside, cx=f"{x:.1f}", cy=f"{y:.1f}", r=4.5, class_="mark")


def _key(side: int) -> Html:
    return el("svg", el("g", _mark(side, 7, 7), class_=f"side-{side}"), class_="key", viewBox="0 0 14 14",
              aria_hidden="true")  # fmt: skip


def _bins(name: str, calibration: Calibration) -> Html:
    head = ("Confidence", "Mean", "Good")
    lines = [
        el("tr", el("td", f"{b.low:.0%} to {b.high:.0%}"), el("td", f"{b.confidence:.1%}"), el("td", str(b.correct)))
        for b in calibration.equal_width.bins
    ]
    return el("table", el("caption", name), el("thead", el("tr", *(el("th", h, scope="col") for h in head))),
              el("tbody", *lines), class_="bins")  # fmt: skip


def _said(b: Bin) -> str:
    return f"confidence {b.low:.0%} to {b.high:.0%}, mean {b.confidence:.1%}; good: {b.correct}"


def _x(share: float) -> float:
    return LEFT + WIDE * share


def _y(share: float) -> float:
    return TOP + HIGH * (1 - share)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return el("line", x1=f"{_x(x1):.1f}", y1=f"{_y(y1):.1f}", x2=f"{_x(x2):.1f}", y2=f"{_y(y2):.1f}", class_=kind)
