"""A trace for the eye: a terminal table, and the same as SVG."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlx_gemma.tracing.record import Candidate, Position, Trace


def visible(token: str) -> str:
    """A token's text with its spaces and line breaks made visible."""
    return token.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def heat(probability: float) -> str:
    """A colour from red (unlikely) to green (certain)."""
    return next(
        c for bound, c in ((0.5, "red"), (0.8, "yellow"), (0.95, "cyan"), (2.0, "green")) if probability < bound
    )


def table(trace: Trace, columns: int = 3, uncertain: int | None = None) -> Table:
    """One row a position: token, probability, and the `columns` most probable candidates, the chosen one marked ◀.

    Args:
        uncertain: only so many positions, the most uncertain (by the chosen token's probability) first.
    """
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column("#", justify="right", style="dim")
    out.add_column("token", no_wrap=True)
    out.add_column("prob", justify="right")
    out.add_column("entropy", justify="right", style="dim")
    for i in range(columns):
        out.add_column("candidates" if i == 0 else "", no_wrap=True)
    positions = trace.positions
    if uncertain is not None:
        positions = sorted(positions, key=lambda p: p.logprob)[:uncertain]
    for p in positions:
        shown = p.candidates[:columns]
        chosen = next(c for c in p.candidates if c.chosen)
        if chosen not in shown:
            shown = [*shown[:-1], chosen]
        out.add_row(
            str(p.index),
            Text(visible(p.text), style=heat(p.probability)),
            f"{p.probability:.1%}",
            f"{p.entropy:.2f}",
            *(_candidate(c, p) for c in shown),
        )
    return out


def _candidate(candidate: Candidate, position: Position) -> Text:
    text = Text(f"{visible(candidate.text)} {candidate.probability:.1%}")
    if candidate.chosen:
        text.append(" ◀")
        text.stylize(f"bold {heat(position.probability)}")
    return text


def save_svg(content: Table, path: Path, title: str, width: int = 92) -> None:
    """The table as an SVG picture."""
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=width, file=nowhere)
        console.print(content)
        path.write_text(console.export_svg(title=title), encoding="utf8")
