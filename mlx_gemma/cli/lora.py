"""`mlx-gemma lora RECIPE`: train an adapter."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key, e.g. --set train.lr=1e-4. May be repeated.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the newest checkpoint of an unfinished run; if there is none, start anew.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print three rendered rows, the plan and its predicted memory, and stop; refuse what does not fit.",
)
@click.option(
    "--keys",
    is_flag=True,
    help="List every key of a recipe with its default, what it may be and its consequence, and stop.",
)
def command(recipe: Path | None, overrides: tuple[str, ...], resume: bool, dry_run: bool, keys: bool) -> None:
    """Train a LoRA adapter from RECIPE, a YAML file, and write a run folder.

    \b
    mlx-gemma lora recipes/python3.yaml                     Gemma 4 E2B, on a MacBook
    mlx-gemma lora recipes/nano.yaml                        the embedded model, anywhere
    mlx-gemma lora recipes/nano.yaml --set train.steps=20 --dry-run
    mlx-gemma lora recipes/nano.yaml --resume               go on where it was stopped
    mlx.launch -n 2 mlx-gemma lora recipes/nano.yaml        two processes, or machines: docs/distributed.md
    """
    from mlx_gemma.cli import options, progress

    if keys:  # before MLX is loaded, and before other machines are waited for
        progress.print_keys(options.console())
        return
    if recipe is None:
        raise click.UsageError("give a recipe, for example recipes/nano.yaml, or --keys")

    from rich.console import Console

    from mlx_gemma import platform, run
    from mlx_gemma.recipe import read_recipe

    group = platform.machines()
    console = Console(highlight=False, quiet=group.rank() > 0)  # the first of several machines speaks
    resolved = read_recipe(recipe, overrides)

    from mlx_gemma.training import advice, plan, trackers
    from mlx_gemma.training.loop import train
    from mlx_gemma.training.prepare import prepare

    progress.print_recipe(console, resolved)
    if not dry_run:
        run.check(Path(resolved.recipe.output).expanduser(), resume=resume)
        trackers.require(resolved.recipe.report_to)
    with console.status("reading data and model"):
        prepared = prepare(resolved.recipe)
    planned = plan.plan(resolved, prepared, group.size())
    if dry_run:
        progress.print_examples(console, prepared)
    progress.print_plan(console, planned)
    progress.print_advice(console, advice.advise(resolved, prepared, planned.steps))
    plan.check_memory(planned, resolved.recipe)
    if dry_run:
        return
    with progress.live(console, planned.steps) as report:
        folder = train(resolved, prepared, report, resume=resume)
    if not console.quiet:
        progress.print_result(console, folder)
