"""`mlx-gemma lora RECIPE`: train an adapter."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, e.g. --set train.lr=1e-4."
)
@click.option("--dry-run", is_flag=True, help="Print what would be trained, with three rendered rows, and stop.")
@click.option("--keys", is_flag=True, help="List every key of a recipe with its consequence, and stop.")
def command(recipe: Path | None, overrides: tuple[str, ...], dry_run: bool, keys: bool) -> None:
    """Train a LoRA adapter from RECIPE, a YAML file, and write a run folder.

    \b
    mlx-gemma lora recipes/python3.yaml                     Gemma 4 E2B, on a MacBook
    mlx-gemma lora recipes/nano.yaml                        the embedded model, anywhere
    mlx-gemma lora recipes/nano.yaml --set train.steps=20 --dry-run
    """
    from rich.console import Console
    from rich.text import Text

    from mlx_gemma.recipe import known_keys, read_recipe

    console = Console(highlight=False)
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
    from mlx_gemma.training import plan
    from mlx_gemma.training.loop import train
    from mlx_gemma.training.prepare import prepare

    progress.print_recipe(console, resolved)
    if not dry_run:
        run.check(Path(resolved.recipe.output).expanduser())
    with console.status("reading data and model"):
        prepared = prepare(resolved.recipe)
    planned = plan.plan(resolved, prepared)
    progress.print_plan(console, planned)
    if dry_run:
        progress.print_examples(console, prepared)
        return
    plan.check_memory(planned)
    with progress.live(console, planned.steps) as report:
        folder = train(resolved, prepared, report)
    progress.print_result(console, folder)
