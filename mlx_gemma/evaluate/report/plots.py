"""What several parts of a report draw: a rate with its interval, and a number that leads to its answers."""

from __future__ import annotations

from mlx_gemma.evaluate.stats import Rate
from mlx_gemma.html_page import Html, el


def pick(text: str, **filters: str | float) -> Html:
    """Text that page.js makes a button which leaves the answers of these filters: verdict, column, type, change."""
    return el("span", text, class_="pick", **{f"data_{name}": value for name, value in filters.items()})


def interval_plot(rate: Rate, side: int) -> Html:
    """A track from 0 to 100 %, the interval on it, and the rate as a line; the numbers stand beside it."""
    low, high = rate.interval
    return el(
        "svg",
        el("rect", width="100%", height="100%", rx=3, class_="track"),
        el("rect", x=_percent(low), width=_percent(high - low), height="100%", rx=2, class_=f"reach side-{side}"),
        el("line", x1=_percent(rate.value), x2=_percent(rate.value), y1=0, y2="100%", class_="value"),
        class_="interval",
        aria_hidden="true",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
