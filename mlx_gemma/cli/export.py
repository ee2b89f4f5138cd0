"""`mlx-gemma export RUN --to hf`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to", type=click.Choice(["hf"]), default="hf", show_default=True, help="The form: hf, a Hugging Face folder."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where to write; default: RUN/hf.")
@click.option("--base", metavar="MODEL", help="Merge into this checkpoint instead of the one RUN was trained on.")
def command(run: Path, to: str, out: Path | None, base: str | None) -> None:
    """Write the base model with RUN's adapter merged in, as one folder that transformers loads.

    Merged in float32, saved in the base's dtype; every other tensor and file of the base is carried over untouched. The
    result is loaded again and compared with base and adapter before the command reports success.
    """
    from mlx_gemma.interop.export import export

    console = options.console()
    with console.status("merging and comparing"):
        done = export(run, to, out, base=base)
    console.print(f"{done.path}: {len(done.changes)} tensors merged, {done.bytes / 1e6:.1f} MB")
    share = done.gap.mean / max(done.effect, 1e-12)
    console.print(
        f"verified by loading it again: rounding is {share:.1%} of the adapter's effect on the logits "
        f"(mean {done.gap.mean:.1e} of {done.effect:.1e}; half would be refused)"
    )
    if done.moved is not None:
        share = done.moved / max(done.effect, 1e-12)
        console.print(
            "trained on a quantised base, merged into the full-precision one: that moves the logits by "
            f"{share:.1%} of the adapter's effect (mean {done.moved:.1e})"
        )
