"""`mlx-gemma audit DATA`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options


@click.command()
@click.argument("data")
@click.option(
    "--against",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An eval file whose prompts must not be in DATA. May be repeated.",
)
@click.option(
    "--write", "clean", type=click.Path(path_type=Path), metavar="CLEAN", help="Write the kept rows to this file."
)
def command(data: str, against: tuple[Path, ...], clean: Path | None) -> None:
    """Tell what is in DATA: a JSONL or Parquet file, a folder, or hf://owner/name.

    With --write, the kept rows go to CLEAN, and each rejected row with its reasons to a file beside it.

    \b
    mlx-gemma audit datasets/python3/raw.jsonl --against evals/python3.jsonl --write clean.jsonl
    """
    from rich.table import Table
    from rich.text import Text

    from mlx_gemma.data.audit import audit
    from mlx_gemma.data.formats import scan_rows
    from mlx_gemma.data.policy import FilterPolicy
    from mlx_gemma.data.sources import data_files
    from mlx_gemma.errors import UserError

    if clean is not None:
        rejected = clean.with_name(f"{clean.stem}.rejected.jsonl")
        inputs = {file.resolve() for file in (*(file for file, _ in data_files(data)), *against)}
        for path in (clean, rejected):
            if path.resolve() in inputs:
                raise UserError("would be overwritten, and is read", where=path, fix="give --write another name")
    console = options.console()
    with console.status(Text(f"reading {data}")):
        report = audit(scan_rows(data), FilterPolicy(malformed="reject"), against)
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("check", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("action", style="dim", no_wrap=True)
    table.add_column("for example", style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
    for check, rows, action, example in report.table():
        table.add_row(check, str(rows), action, example)
    console.print(table)
    console.print(
        f"{report.read:,} rows read: {len(report.kept):,} kept, {len(report.rejected):,} rejected", style="bold"
    )
    if clean is not None:
        report.write(clean, rejected)
        console.print(f"kept rows in {clean}, rejected ones with their reasons in {rejected}")
