"""`mlx-gemma gate calibrate` and `mlx-gemma gate report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_gemma.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mlx_gemma.gate.fit import Fit
    from mlx_gemma.gate.outcomes import Outcome

PATH = click.Path(path_type=Path)
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command()
@click.argument("gate", type=PATH)
@click.option(
    "--suite",
    "suites",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Calibration queries (evals/README.md), once or more: in the domain, near to it, far from it, misleading.",
)
@click.option("--alpha", type=SHARE, default=0.1, show_default=True, help="The rate of bad outputs to be kept.")
@click.option("--delta", type=SHARE, default=0.1, show_default=True, help="The chance that it is not kept after all.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, another split.")
@click.option("--unsafe-exec", is_flag=True, help="Run the answers' code without a sandbox, as you, on this machine.")
def calibrate(gate: Path, suites: tuple[Path, ...], alpha: float, delta: float, seed: int, unsafe_exec: bool) -> None:
    """Find the score from which GATE's specialist may answer: at most ALPHA bad outputs, with confidence 1 - DELTA.

    Specialist and base answer every query of the suites, greedily. A third of the queries choose the score and the
    order of thresholds, the others test them. What cannot be shown goes to the base. Without --suite, the outcomes of
    the last calibration are taken, and no model runs.

    The bound holds for queries like those of the suites, in their mix. Choose alpha, delta and seed before you look.
    """
    from mlx_gemma.gate.answers import read_sources
    from mlx_gemma.gate.calibrate import calibrate as run_both
    from mlx_gemma.gate.calibrate import recalibrate

    console = options.console()
    if suites:
        from mlx_gemma.evaluate.sandbox import prove, without_wall

        code = any(item.tests or item.followed for source in read_sources(suites) for item in source.suite.items)
        if code and not unsafe_exec:
            with console.status("trying the sandbox (15 s, once after a start of the machine)"):
                prove().require()
        with console.status("encoding the queries") as status:
            found = run_both(
                gate,
                suites,
                alpha=alpha,
                delta=delta,
                seed=seed,
                wall=without_wall() if unsafe_exec else None,
                progress=lambda what, done, of: status.update(f"{what}: {done}/{of}"),
            )
    else:
        found = recalibrate(gate, alpha=alpha, delta=delta, seed=seed)
    if found.unscored:
        console.print(f"{found.unscored} queries cannot be scored and go to the base: they are left out")
    if found.trained:
        console.print(
            f"{found.trained} queries are training prompts word by word: the bound is too good for new queries"
        )
    compared(console, found.fit)
    routes(console, found.outcomes, found.fit)
    console.print(found.fit.reason, style="bold")
    console.print(f"in {gate}; pictures and tables: mlx-gemma gate report {gate}")


def compared(console: Console, fit: Fit) -> None:
    """Print how the scores rank good outputs."""
    from rich.table import Table

    table = Table("score", box=None, pad_edge=False, header_style="bold")
    for column in ("AUROC of a good output", "area, choosing part", "area, testing part", "threshold", "would be sent"):
        table.add_column(column, justify="right")
    for c in sorted(fit.compared.values(), key=lambda c: c.chose):
        b = c.bound
        limit = ("none", "0%") if b.threshold is None else (f"{b.threshold:.3f}", f"{b.accepted / b.tested:.0%}")
        ranks = "-" if c.auroc is None else str(c.auroc)
        style = "bold" if c.name == fit.score else None
        table.add_row(c.name, ranks, f"{c.chose:.3f}", f"{c.curve.area:.3f}", *limit, style=style)
    console.print(table)
    console.print(
        "area: under the risk-coverage curve, lower is better; bold: chosen. *_logprob route no query", style="dim"
    )


def routes(console: Console, outcomes: Sequence[Outcome], fit: Fit) -> None:
    """Print bad outputs by suite and by who answers."""
    from rich.table import Table

    from mlx_gemma.gate.tables import routed

    table = Table("bad, testing part", box=None, pad_edge=False, header_style="bold")
    for column in ("to the specialist", "bad there", "gate", "base alone", "specialist alone", "oracle"):
        table.add_column(column, justify="right")
    for row in routed(outcomes, fit, fit.accept.threshold):
        if ": " not in row.name:
            sent = f"{row.sent.count}/{row.sent.total}"
            bad = f"{row.specialist.count}/{row.specialist.total}"
            alone = (f"{rate.value:.1%}" for rate in (row.base_alone, row.specialist_alone, row.oracle))
            table.add_row(row.name, sent, bad, str(row.gate), *alone)
    console.print(table)


@click.command()
@click.argument("gate", type=PATH)
@click.option("--out", type=PATH, metavar="FOLDER", help="A new folder; GATE/report, written anew, if not given.")
def report(gate: Path, out: Path | None) -> None:
    """Write GATE's calibration as a page and pictures: risk against coverage, reliability, scores by suite, failures.

    The page (report.html) shows what another threshold or alpha would do. It holds calibration queries.
    """
    from mlx_gemma.gate.report import write_report

    for path in write_report(gate, out):
        click.echo(path)
