"""`mlx-gemma trace compare MODEL [PROMPT]`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options
from mlx_gemma.errors import UserError


@click.command()
@click.pass_context
@click.argument("model")
@click.argument("prompt", required=False)
@options.adapter
@click.option("--with", "other", metavar="MODEL", help="Side B: another model or run. Default: MODEL itself.")
@click.option("--adapter-b", type=click.Path(path_type=Path), metavar="FOLDER", help="An adapter for side B.")
@options.system
@click.option("--system-b", metavar="TEXT", help="A system turn for side B.")
@click.option("--prompt-b", metavar="TEXT", help="Another prompt for side B.")
@click.option("--prompts", type=click.Path(path_type=Path), metavar="FILE", help="JSON Lines with a prompt in each.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N of them.")
@click.option("--decide", multiple=True, metavar="TEXT", help="Two or more texts that compete: how far do they move?")
@click.option("--force", metavar="TEXT", help="Compare over this answer instead of side A's own.")
@click.option("--rows", type=click.IntRange(1), default=8, show_default=True, help="Positions shown, by KL.")
@options.max_tokens(128)
def command(
    ctx: click.Context,
    model: str,
    prompt: str | None,
    adapter: Path | None,
    other: str | None,
    adapter_b: Path | None,
    system: str | None,
    system_b: str | None,
    prompt_b: str | None,
    prompts: Path | None,
    limit: int | None,
    decide: tuple[str, ...],
    force: str | None,
    rows: int,
    max_tokens: int,
) -> None:
    """Read one answer through two models, or behind two prompts, and show where they part.

    The answer is side A's own, greedy, or --force. Of a run alone, side A is its base and side B the run. A base that
    both sides share is in memory once.

    \b
    mlx-gemma trace compare runs/demo "Print the numbers from 1 to 5."               base against run
    mlx-gemma trace compare runs/a "…" --with runs/b                                 two runs
    mlx-gemma trace compare nano "…" --system-b "Prefer Python 3, not Python 2."     two prompts
    mlx-gemma trace compare runs/demo --prompts evals/tasks.jsonl --decide " range" --decide " xrange"
    """
    from mlx_gemma.data.records import read_eval_items
    from mlx_gemma.gemma4 import lora
    from mlx_gemma.tracing import render
    from mlx_gemma.tracing.compare import Model, compare, sides
    from mlx_gemma.tracing.decide import nowhere

    if (prompt is None) == (prompts is None):
        raise UserError("one prompt, or a file of them", where="PROMPT", fix="give either PROMPT or --prompts FILE")
    options.needs(ctx, "limit", "--prompts", prompts is not None)
    if prompts is not None and prompt_b is not None:
        raise UserError("one prompt against a file of others", where="--prompt-b", fix="leave out one of them")
    second = system_b is not None or prompt_b is not None
    one = Model(model, adapter)
    if other is not None or adapter_b is not None:
        two = Model(other or model, adapter_b)
        if two == one and not second:
            raise UserError("both sides would be the same", where=model, fix="give another model, system or prompt")
    elif second:
        two = one
    else:
        if adapter is None and not lora.is_run(Path(model).expanduser()):
            fix = "give a run, or side B: --with, --adapter-b, --system-b or --prompt-b"
            raise UserError("both sides would be the same", where=model, fix=fix)
        one, two = Model(model, adapter, bare=True), one
    asked = [prompt] if prompt is not None else [i.prompt for i in read_eval_items(Path(str(prompts)))][:limit]
    a, b = sides(one, two)
    systems = (system, system_b if system_b is not None else system)
    console = options.console()
    found = []
    with console.status("comparing"):
        for text in asked:
            found.append(
                compare(
                    a,
                    b,
                    str(text),
                    prompt_b=prompt_b,
                    systems=systems,
                    force=force,
                    texts=decide,
                    max_tokens=max_tokens,
                )
            )
    if prompts is None and decide and found[0].decided is None:
        raise nowhere(decide)
    names = (render.side(a.name, systems[0]), render.side(b.name, systems[1]))
    for part in render.comparison(found[0], names, rows) if prompts is None else render.comparisons(found, names):
        console.print(part)
