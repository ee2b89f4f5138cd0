"""`mlx-gemma sweep RECIPE --set KEY=VALUE,VALUE`: the same recipe with different values, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_gemma.cli import options

if TYPE_CHECKING:
    from mlx_gemma.training.sweep import Row


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "sets",
    multiple=True,
    required=True,
    metavar="KEY=VALUE,…",
    help="Values to try, e.g. adapter.rank=8,16,32. One value sets it for every run. A list is one value: "
    "adapter.targets=[q_proj,k_proj],[v_proj]. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print sweep.json instead of the table.")
def command(recipe: Path, sets: tuple[str, ...], as_json: bool) -> int:
    """Train RECIPE once for every combination of the values, one after another, and compare the runs.

    Each run has its own process and folder, in the recipe's output with -sweep behind it (or --set output=FOLDER),
    where sweep.json holds the table. Called again it runs only what is missing; Ctrl-C saves the current update first.
    Exits 1 if a run failed; the others are run all the same.

    \b
    mlx-gemma sweep recipes/nano.yaml --set adapter.rank=8,16,32 --set output=runs/ranks
    """
    from mlx_gemma.recipe.grid import grid
    from mlx_gemma.training import sweep

    root, trials = grid(recipe, sets)
    rows = sweep.sweep(root, trials, lambda line: click.echo(line, err=True))
    if as_json:
        click.echo((root / sweep.RESULT).read_text(encoding="utf8"), nl=False)
    else:
        _print(rows, sweep.best(rows))
    return int(any(row.error for row in rows))


def _print(rows: list[Row], best: int | None) -> None:
    from rich.table import Table

    console = options.console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", *rows[0].values):
        table.add_column(name)
    for name in ("validation", "regression", "memory", "time"):
        table.add_column(name, justify="right")
    table.add_column("diagnosis")
    for i, row in enumerate(rows):
        r = row.regression
        cells = (
            "-" if row.valid_loss is None else f"{row.valid_loss:.4f}",
            "-" if r is None else f"{r['before']:.3f} → {r['after']:.3f}",
            "-" if row.peak_memory_gb is None else f"{row.peak_memory_gb:.2f} GB",
            "-" if row.seconds is None else f"{row.seconds:.0f} s",
            row.error or row.diagnosis or "-",
        )
        style = "red" if row.error else "bold green" if i == best else ""
        table.add_row("*" if i == best else "", *row.values.values(), *cells, style=style)
    console.print(table)
    console.print(
        "* lowest validation loss; losses in nats a supervised token; time is that of updates, without loading and "
        "validation",
        style="dim",
    )
