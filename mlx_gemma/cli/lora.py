"""`mlx-gemma lora RECIPE`: train an adapter."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, e.g. --set train.lr=1e-4."
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint of an unfinished run; anew if none.")
@click.option("--dry-run", is_flag=True, help="Print what would be trained, with three rendered rows, and stop.")
@click.option("--keys", is_flag=True, help="List every key of a recipe with its consequence, and stop.")
def command(recipe: Path | None, overrides: tuple[str, ...], resume: bool, dry_run: bool, keys: bool) -> None:
    """Train a LoRA adapter from RECIPE, a YAML file, and write a run folder.

    \b
    mlx-gemma lora recipes/python3.yaml                     Gemma 4 E2B, on a MacBook
    mlx-gemma lora recipes/nano.yaml                        the embedded model, anywhere
    mlx-gemma lora recipes/nano.yaml --set train.steps=20 --dry-run
    mlx-gemma lora recipes/nano.yaml --resume               go on where it was stopped
    mlx.launch -n 2 mlx-gemma lora recipes/nano.yaml        two processes, or machines: docs/distributed.md
    """
    from rich.console import Console
    from rich.text import Text

    from mlx_gemma import platform
    from mlx_gemma.recipe import known_keys, read_recipe

    console = Console(highlight=False, quiet=platform.machines().rank() > 0)  # the first of several machines speaks
    if keys:
        width = max(map(len, known_keys()))
        for key, consequence in known_keys().items():
            console.print(Text.assemble((f"{key:<{width}}", "bold"), f"  {consequence}"))
        return
    if recipe is None:
        raise click.UsageError("give a recipe, for example recipes/nano.yaml, or --keys")
    resolved = read_recipe(recipe, overrides)

    from mlx_gemma import run
    from mlx_gemma.cli import progress
    from mlx_gemma.training import advice, plan, trackers
    from mlx_gemma.training.loop import train
    from mlx_gemma.training.prepare import prepare

    progress.print_recipe(console, resolved)
    if not dry_run:
        run.check(Path(resolved.recipe.output).expanduser(), resume=resume)
        trackers.require(resolved.recipe.report_to)
    with console.status("reading data and model"):
        prepared = prepare(resolved.recipe)
    planned = plan.plan(resolved, prepared)
    progress.print_plan(console, planned)
    progress.print_advice(console, advice.advise(resolved, prepared, planned.steps))
    if dry_run:
        progress.print_examples(console, prepared)
        return
    plan.check_memory(planned)
    with progress.live(console, planned.steps) as report:
        folder = train(resolved, prepared, report, resume=resume)
    if not console.quiet:
        progress.print_result(console, folder)
