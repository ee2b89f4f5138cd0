"""`mlx-gemma data build`, `mlx-gemma data split` and `mlx-gemma data card`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from mlx_gemma.cli import options


@click.group()
def command() -> None:
    """Make the project's own data sets; split any data set, and write its card.

    \b
    mlx-gemma data build python3 --out mine --pushback 0.1
    mlx-gemma data split rows.jsonl --by prompts --out mine
    mlx-gemma data card mine --check
    """


@command.command()
@click.argument("name", type=click.Choice(["python3", "raw"]))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="A new folder.")
@click.option(
    "--rows", type=click.IntRange(1), default=5000, show_default=True, help="Train rows at most, before faults."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other splits and rows.")
@click.option(
    "--pushback",
    type=click.FloatRange(0, 0.9),
    default=0.0,
    metavar="SHARE",
    help="Share of adversarial rows in every split: requests that are wrong in some part.",
)
@click.option(
    "--pushback-answer",
    type=click.Choice(["correct", "comply"]),
    default="correct",
    show_default=True,
    help="Say what is wrong and solve the task, or do as told (for experiments).",
)
def build(
    name: Literal["python3", "raw"],
    out: Path,
    rows: int,
    seed: int,
    pushback: float,
    pushback_answer: Literal["correct", "comply"],
) -> None:
    """Build NAME: python3 (clean), or raw (its train rows with labelled faults).

    The same arguments give the same bytes. Adversarial rows hold a false claim, advice for Python 2, an example or stub
    that contradicts the description, an impossible condition, or a wrong name, type or count; labels say which.
    """
    from mlx_gemma.data.build.sets import build_set

    console = options.console()
    with console.status(f"building {name}"):
        counts = build_set(name, out, rows=rows, seed=seed, pushback=pushback, answer=pushback_answer)
    for split, found in counts.items():
        labels = ", ".join(f"{n:,} {label}" for label, n in found.items() if label != "rows")
        console.print(f"{split:<6}{found['rows']:>7,} rows{f'; {labels}' if labels else ''}")
    console.print(f"in {out}; README.md says what is in it, with digests")


@command.command()
@click.argument("data")
@click.option(
    "--by",
    metavar="KEY",
    default="family",
    show_default=True,
    help='The key whose rows stay together, e.g. family or source; "prompts": rows whose prompts are nearly equal.',
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="A new folder.")
@click.option(
    "--shares",
    type=(float, float, float),
    default=(0.8, 0.1, 0.1),
    show_default=True,
    metavar="TRAIN VALID TEST",
    help="Of the rows, 1 together; 0 for none.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other groups held out.")
def split(data: str, by: str, out: Path, shares: tuple[float, float, float], seed: int) -> None:
    """Split DATA into train, valid and test, so that no group is in two of them.

    DATA is a JSONL or Parquet file, hf://owner/name, or a folder, whose train rows are meant. Every task type is in
    every split, as far as its groups allow. The same arguments give the same bytes.
    """
    from mlx_gemma.data.build.split_files import split_files

    console = options.console()
    with console.status(f"reading {data}"):
        written = split_files(data, out, by=by, shares=shares, seed=seed)
    total = sum(written.values())
    for name, rows in written.items():
        console.print(f"{name:<6}{rows:>9,} rows ({rows / total:.1%})")
    console.print(f"in {out}; mlx-gemma audit {out} tells what is in two of them all the same")


@command.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=options.OutputFile(), help="Instead of README.md in the folder, or NAME.card.md by a file.")
@click.option("--license", "license_", metavar="ID", help='Of the rows that name none, e.g. "cc-by-4.0".')
@click.option("--language", metavar="CODE", help='Of the texts, e.g. "en".')
@click.option("--name", help="The data set's name; the folder's or file's by default.")
@click.option("--tokenizer", metavar="MODEL", help="Count tokens as this model has them.")
@click.option("--audit", type=click.Path(path_type=Path, exists=True), help="An audit.json; DATA's own by default.")
@click.option("--check", is_flag=True, help="Write nothing; name every file that is not as the card says, exit 1.")
def card(
    data: Path,
    out: Path | None,
    license_: str | None,
    language: str | None,
    name: str | None,
    tokenizer: str | None,
    audit: Path | None,
    check: bool,
) -> int:
    """Write the dataset card of DATA, a folder or file: rows, licences, sources, tokens, digests of all files."""
    from mlx_gemma.data.card.digests import changed
    from mlx_gemma.data.card.write import write_card

    if check:
        problems = changed(out or data)
        click.echo("\n".join(problems) or "all files are as the card says")
        return 1 if problems else 0
    template = None
    if tokenizer is not None:
        from mlx_gemma.gemma4.checkpoint import find
        from mlx_gemma.gemma4.template import ChatTemplate

        template = ChatTemplate(find(tokenizer).folder)
    with options.console().status(f"reading {data}"):
        written = write_card(
            data, out=out, name=name, license=license_, language=language, template=template, audit=audit
        )
    click.echo(f"{written}")
    return 0
