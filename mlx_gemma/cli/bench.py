"""`mlx-gemma bench MODEL`: seconds per query, beside mlx-lm."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options


@click.command()
@click.argument("model")
@options.adapter
@options.gate
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    default=Path("evals/tasks.jsonl"),
    show_default=True,
    help="A JSONL file with a `prompt` in each line.",
)
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Use the first so many prompts.")
@options.max_tokens(128)
@click.option("--save", type=options.OutputFile(), help="Append the measurement as a JSON line to this file.")
def command(
    model: str, adapter: Path | None, gate: Path | None, prompts: Path, limit: int, max_tokens: int, save: Path | None
) -> None:
    """Measure greedy answers of MODEL: load, then seconds per query (median and spread), split into prefill and decode.

    The same weights and prompts go through mlx-lm's own generate in the same run, alternating. Rendering and
    detokenising are not in the figures.
    """
    import json

    from rich.table import Table

    from mlx_gemma.bench.decode import measure, read_prompts
    from mlx_gemma.run import disk_errors

    console = options.console()
    with console.status("measuring"):
        result = measure(model, adapter, read_prompts(prompts, limit), max_tokens, gate)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "s / query", "middle half", "prefill s", "decode s", "tokens/s"):
        table.add_column(name, justify="right" if name else "left")
    for name, side in (("mlx-gemma", result.ours), ("mlx-lm", result.mlx_lm)):
        low, high = side.middle_half
        table.add_row(
            name,
            f"{side.query:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{side.prefill:.3f}",
            f"{side.decode:.3f}",
            f"{side.speed:.0f}",
        )
    console.print(table)
    console.print(
        f"{result.ours.query:.3f} s per query, {result.ratio:.2f} x mlx-lm's; {result.queries} queries of "
        f"{result.tokens} tokens in all, the same in {result.identical}; load {result.load:.2f} s, imports included"
    )
    if result.routed:
        shares = ", ".join(f"{count} to {name}" for name, count in result.routed.items())
        console.print(f"routing {result.routing * 1000:.1f} ms a query, apart; {shares}")
    console.print(", ".join(f"{k} {v}" for k, v in result.machine.items()), style="dim")
    if save is not None:
        with disk_errors(save), save.open("a", encoding="utf8") as file:
            file.write(json.dumps(result.as_row()) + "\n")
