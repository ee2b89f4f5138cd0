"""An evaluation in the terminal: the number of bad answers first, then in which ways, then where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from mlx_gemma.evaluate.paired import Comparison
from mlx_gemma.evaluate.results import Row
from mlx_gemma.evaluate.session import Finished
from mlx_gemma.evaluate.stats import Rate
from mlx_gemma.evaluate.summary import columns, compared, confidences, counts, held, types

WORST = 5  # types of query that are named
NOTE = "95 % intervals; exact paired tests, Holm-corrected: bad over the columns, verdicts over all of them"


def show_session(console: Console, finished: Finished) -> None:
    """All suites, each with its one or two sides, and where its page is."""
    for done in finished.suites:
        header = done.suite.header
        title = f"{header.name}, version {header.version}"
        console.print(f"\n{title}: {header.about}" if header.about else f"\n{title}", style="bold")
        if len(done.sides) == 2:
            first, second = done.sides
            show_compared(console, (first.name, second.name), first.rows, second.rows)
        else:
            show(console, done.sides[0].name, done.sides[0].rows)
        rows = done.sides[-1].rows
        seconds = sum(row.seconds for row in rows) / len(rows)
        console.print(f"{seconds:.2g} s an answer; every answer: {done.page}", style="dim", soft_wrap=True)
    for name, found in finished.perplexities.items():
        console.print(f"perplexity, {name}: {found}", soft_wrap=True)


def show(console: Console, name: str, rows: Sequence[Row]) -> None:
    """One model's answers."""
    parts = columns(rows)
    table = _table(name, *(part.name for part in parts))
    verdicts = held(rows)
    rates = [counts(part.rows, verdicts) for part in parts]
    for verdict in ("bad", *verdicts):
        table.add_row(verdict, *(short(of[verdict]) for of in rates), style="bold" if verdict == "bad" else None)
    console.print(table)
    for line in _lines(rows):
        console.print(line, style="dim", soft_wrap=True)


def show_compared(console: Console, names: tuple[str, str], first: Sequence[Row], second: Sequence[Row]) -> None:
    """Two models' answers to the same items."""
    found = compared(first, second)
    for column in dict.fromkeys(column for column, _ in found):
        table = _table(column, *names, "points", "")
        chosen = {verdict: c for (name, verdict), c in found.items() if name == column}
        for verdict, comparison in chosen.items():
            a, b = comparison.rates
            cells = (verdict, _share(a), _share(b), _points(comparison), comparison.verdict)
            table.add_row(*cells, style="bold" if verdict == "bad" else None)
        console.print(table)
        bad = chosen["bad"]
        if bad.verdict == "cannot tell":
            least = f"{bad.smallest * 100:.0f} points or more" if bad.smallest is not None else "nothing"
            console.print(f"what so few independent items ({bad.effective:.0f}) could have shown: {least}", style="dim")
    console.print(NOTE, style="dim", soft_wrap=True)


def _share(rate: Rate) -> str:
    return f"{rate.count}/{rate.total} {rate.value * 100:.0f} %"


def short(rate: Rate) -> str:
    """12/69 17 % (10-28)"""
    low, high = rate.interval
    return f"{_share(rate)} ({low * 100:.0f}-{high * 100:.0f})"


def _points(comparison: Comparison) -> str:
    low, high = comparison.interval
    return f"{comparison.difference * 100:+.0f} ({low * 100:+.0f} to {high * 100:+.0f})"


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(names):
        table.add_column(name, justify="left" if at == 0 else "right", overflow="fold")
    return table


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    for route in sorted({row.route for row in rows} - {""}):
        bad = [row.bad for row in rows if row.route == route]
        yield f"answered by {route}: bad {short(Rate(sum(bad), len(bad)))}"
    worst = [cell for cell in types(rows) if cell.rate.count]
    if len(worst) > 1:
        listed = ", ".join(f"{c.name} {c.rate.count}/{c.rate.total}" for c in worst[:WORST])
        yield f"worst types (descriptive): {listed}{', ...' if len(worst) > WORST else ''}"
    for name, found in confidences(rows).items():
        ranked = f"AUROC {found.auroc.value:.2f}" if found.auroc else "AUROC not defined, as all are alike"
        error = found.equal_width
        yield (
            f"confidence by {name}: {found.mean_confidence:.0%} against {found.accuracy.value:.0%} right, "
            f"calibration error {error.value:.2f} ({error.interval[0]:.2f}-{error.interval[1]:.2f}), "
            f"Brier score {found.brier.value:.2f}, {ranked}"
        )
