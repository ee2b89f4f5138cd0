"""`mlx-gemma trace diff A B`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--tolerance", type=click.FloatRange(0), default=0.01, show_default=True, help="Nats that a token may have moved."
)
def command(a: Path, b: Path, tolerance: float) -> int:
    """Compare two traces that `trace --save` wrote, token by token.

    Exits 0 where the answers are the same and no listed log-probability moved by more than --tolerance, and 1
    otherwise: a trace can so stand in CI.

    \b
    mlx-gemma trace runs/demo "Print the numbers from 1 to 5." --save expected.json
    mlx-gemma trace runs/new  "Print the numbers from 1 to 5." --save found.json
    mlx-gemma trace diff expected.json found.json
    """
    from mlx_gemma.tracing import render
    from mlx_gemma.tracing.difference import difference
    from mlx_gemma.tracing.files import read

    found = difference(read(a), read(b))
    for line in render.difference(found, tolerance):
        options.console().print(line)
    return 0 if found.within(tolerance) else 1
