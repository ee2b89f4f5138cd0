"""`mlx-gemma trace MODEL PROMPT`, and below it compare, diff and blame: a file each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_gemma.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from mlx_gemma.tracing.record import Trace

LEFT_COLUMNS, CANDIDATE, DRAWN = 34, 16, 7  # characters: before the candidates, one of them, and what sampling adds
BELOW = {
    "compare": "One answer through two models, or behind two prompts: where do they part?",
    "diff": "Compare two saved traces, token by token, as a test would.",
    "blame": "From a token to the training rows behind it.",
}


class WithBelow(click.Command):
    """A command with commands below it: a first argument that names one goes there."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] in BELOW:
            below: click.Command = import_module(f"mlx_gemma.cli.trace_{args[0]}").command
            return below.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands below it (mlx-gemma trace COMMAND --help)"):
            formatter.write_dl(list(BELOW.items()))


@click.command(cls=WithBelow)
@click.pass_context
@click.argument("model")
@click.argument("prompt")
@options.adapter
@options.system
@click.option("--top", type=int, default=10, show_default=True, help="Candidates kept for each token, at most 100.")
@click.option("--columns", type=click.IntRange(1, 10), default=3, show_default=True, help="Candidates shown.")
@click.option("--uncertain", type=click.IntRange(1), metavar="N", help="Show the N least certain tokens, least first.")
@click.option("--by", type=click.Choice(["token", "word", "line"]), default="token", show_default=True, help="Unit.")
@click.option("--force", metavar="TEXT", help="Trace this answer instead of the model's own.")
@click.option("--prompt-tokens", "prompt_too", is_flag=True, help="Show the prompt's own tokens too.")
@click.option("--decide", multiple=True, metavar="TEXT", help="Two or more texts that compete: how probable is each?")
@click.option("--find", "find_", is_flag=True, help="Find where answers of different meaning compete.")
@click.option("--margin", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="For --find: how close.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: OpenAI's log-probabilities, and more.")
@click.option("--save", type=options.OutputFile(), help="Write that JSON, for `trace diff`.")
@click.option("--html", type=options.OutputFile(), help="Write a page to explore: rivals, and where they would lead.")
@click.option(
    "--branches", "most", type=click.IntRange(1), default=40, show_default=True, help="For --html: rivals followed."
)
@options.sampling(default_tokens=128)
def command(
    ctx: click.Context,
    model: str,
    prompt: str,
    adapter: Path | None,
    system: str | None,
    top: int,
    columns: int,
    uncertain: int | None,
    by: str,
    force: str | None,
    prompt_too: bool,
    decide: tuple[str, ...],
    find_: bool,
    margin: float,
    as_json: bool,
    save: Path | None,
    html: Path | None,
    most: int,
    temperature: float,
    top_p: float,
    top_k: int,
    seed: int,
    max_tokens: int,
) -> None:
    """Answer PROMPT with MODEL and show every token's probability and its rivals.

    The answer first, then the table. Probabilities are the model's own, before temperature, top-p and top-k; ◀ marks
    the token that was chosen, and in sampling → what these made of its probability.

    \b
    mlx-gemma trace nano "Print the numbers from 1 to 5." --uncertain 5
    mlx-gemma trace nano "Print the numbers from 1 to 5." --decide " range" --decide " xrange"
    mlx-gemma trace nano "Print the numbers from 1 to 5." --html trace.html
    """
    from mlx_gemma.decode.sample import Sampling
    from mlx_gemma.gemma4.load import load
    from mlx_gemma.run import disk_errors, write_text
    from mlx_gemma.tracing import files, render
    from mlx_gemma.tracing.decide import check
    from mlx_gemma.tracing.record import trace

    options.needs(ctx, "margin", "--find", find_)
    options.needs(ctx, "most", "--html", html is not None)
    sampling = Sampling(temperature, top_p, top_k, seed)
    gemma = load(model, adapter=adapter)
    if decide:
        check(decide, gemma.template)  # before minutes of an answer
    found = trace(
        gemma,
        prompt,
        system=system,
        sampling=sampling,
        max_tokens=max_tokens,
        top=top,
        force=force,
        prompt_too=prompt_too,
    )
    console = options.console(stderr=as_json)  # stdout is the JSON's alone
    if save is not None:
        with disk_errors(save):
            files.save(found, gemma.template, save)
    if as_json:
        click.echo(json.dumps(files.as_json(found, gemma.template), ensure_ascii=False, allow_nan=False))
    else:
        click.echo(gemma.template.decode([p.token for p in found.positions if p.token not in gemma.stop_tokens]))
        if found.finish == "length":
            console.print(
                "[cut at --max-tokens]" if len(found.positions) == max_tokens else "[cut at the context's end]"
            )
        _table(console, found, by, columns, uncertain)
    if decide:
        from mlx_gemma.tracing.decide import decide as follow

        console.print(render.decision(follow(gemma, found, decide)))
    if find_:
        from mlx_gemma.tracing.meaning import find

        console.print(render.rivals(find(gemma, found, margin=margin)))
    if html is not None:
        from mlx_gemma.tracing.branches import branches
        from mlx_gemma.tracing.page import page

        with console.status("following the rivals"):
            text = page(found, branches(gemma, found, most=most))
        with disk_errors(html):
            write_text(html, text)
        console.print(f"[{html}: open it in a browser]")


def _table(console: Console, found: Trace, by: str, columns: int, uncertain: int | None) -> None:
    from mlx_gemma.tracing import render
    from mlx_gemma.tracing.pieces import pieces

    positions: Sequence[Any] = [*found.prompt, *found.positions]
    if by != "token":
        console.print(render.piece_table(pieces(positions, by), uncertain))
        return
    wide = CANDIDATE + (0 if found.sampling.greedy else DRAWN)
    fitting = max(1, (console.width - LEFT_COLUMNS) // wide)
    console.print(render.table(positions, min(columns, fitting), uncertain))
    columns = min(columns, max(len(p.candidates) for p in positions))
    if fitting < columns:
        console.print(f"[{fitting} of {columns} candidates fit in {console.width} columns]")
