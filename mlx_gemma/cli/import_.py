"""`mlx-gemma import ADAPTER --from peft`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options


@click.command("import")
@click.argument("adapter")
@click.option(
    "--from", "form", type=click.Choice(["peft", "mlx-lm"]), required=True, help="The program that it was trained with."
)
@click.option("--base", metavar="MODEL", help="The model that it was trained on; default: the one that ADAPTER names.")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder to make; default: runs/ADAPTER.")
def command(adapter: str, form: str, base: str | None, out: Path | None) -> None:
    """Make a run folder of ADAPTER, a folder or hub id with a LoRA or DoRA for Gemma 4's text decoder.

    What is made is for generate, trace, eval and export. Its logits are compared with those of the program that ADAPTER
    comes from, where that is installed (pip install peft), before the command reports success.

    \b
    mlx-gemma import someone/their-gemma-4-lora --from peft
    mlx-gemma import adapters --from mlx-lm --base google/gemma-4-E2B-it --out runs/mine
    """
    from mlx_gemma.interop.importing import import_adapter

    console = options.console()
    with console.status("importing and comparing"):
        done = import_adapter(adapter, form, base, out)
    found = done.found
    shape = f"rank {found.rank}, scale {found.scale:g}, " if found.rank else ""
    modules = sum(done.modules.values())
    console.print(f"{done.path}: {found.kind} on {modules} modules, {shape}{done.parameters:,} parameters")
    for notice in found.notices:
        console.print(notice)
    if done.gap is None:
        console.print(f"not verified: {done.unverified}")
    else:
        console.print(f"verified against {form}: {done.gap} (the adapter's effect: mean {done.effect:.1e})")
