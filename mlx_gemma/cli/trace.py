"""`mlx-gemma trace MODEL PROMPT`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options

LEFT_COLUMNS, CANDIDATE = 34, 15  # characters: what stands before the candidates, and one of them


@click.command()
@click.argument("model")
@click.argument("prompt")
@options.adapter
@options.system
@click.option("--top", type=int, default=10, show_default=True, help="Candidates kept for each token.")
@click.option("--columns", type=click.IntRange(1, 10), default=3, show_default=True, help="Candidates shown.")
@click.option("--uncertain", type=click.IntRange(1), metavar="N", help="Show the N least certain tokens, least first.")
@click.option("--svg", type=options.OutputFile(), help="Save the table as a picture too.")
@options.sampling(default_tokens=128)
def command(
    model: str,
    prompt: str,
    adapter: Path | None,
    system: str | None,
    top: int,
    columns: int,
    uncertain: int | None,
    svg: Path | None,
    temperature: float,
    top_p: float,
    top_k: int,
    seed: int,
    max_tokens: int,
) -> None:
    """Answer PROMPT with MODEL and show every token's probability and its rivals.

    The answer first, then the table. Probabilities are the model's own, before temperature, top-p and top-k; ◀ marks
    the token that was chosen.

    \b
    mlx-gemma trace nano "Print the numbers from 1 to 5." --uncertain 5
    mlx-gemma trace nano "Print the numbers from 1 to 5." --system "Prefer Python 3, not Python 2."
    """
    from mlx_gemma.decode.sample import Sampling
    from mlx_gemma.gemma4.load import load
    from mlx_gemma.run import disk_errors
    from mlx_gemma.tracing.record import trace
    from mlx_gemma.tracing.render import save_svg, table

    sampling = Sampling(temperature, top_p, top_k, seed)
    found = trace(
        load(model, adapter=adapter), prompt, system=system, sampling=sampling, max_tokens=max_tokens, top=top
    )
    console = options.console()
    console.print(found.text)
    if len(found.positions) == max_tokens:
        console.print(f"[cut at --max-tokens {max_tokens}]")
    fitting = max(1, (console.width - LEFT_COLUMNS) // CANDIDATE)
    shown = table(found, min(columns, fitting), uncertain)
    console.print(shown)
    if fitting < columns:
        console.print(f"[{fitting} of {columns} candidates fit in {console.width} columns]")
    if svg is not None:
        with disk_errors(svg):
            save_svg(shown, svg, f"{model}: {prompt}")
