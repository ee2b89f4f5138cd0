"""`mlx-gemma audit DATA`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_gemma.cli import options
from mlx_gemma.errors import visible_line

if TYPE_CHECKING:
    from rich.console import Console

    from mlx_gemma.data.audit import Progress, Report

SELDOM = 30  # seconds between two lines about the progress, where there is no terminal


@click.command()
@click.argument("data", required=False)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="Judge by the filter section of this recipe, count lengths in its model's tokens; its training data, if "
    "DATA is not given.",
)
@click.option(
    "--against",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An eval file whose prompts and answers must not be in DATA. May be repeated.",
)
@click.option(
    "--write", "clean", type=click.Path(path_type=Path), metavar="CLEAN", help="Write the kept rows to this file."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write audit.json and audit.html to this folder: --json and --html in one.",
)
@click.option(
    "--json", "report_file", type=options.OutputFile(), metavar="FILE", help="Write everything that was found."
)
@click.option(
    "--html", type=options.OutputFile(), help="Write a page to look at: counts, plots, and rows with what was found."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="Processes for large data; as many as there are processors, at most eight, if not given.",
)
@click.option("--fresh", is_flag=True, help="Audit again what the cache has an answer to.")
def command(
    data: str | None,
    recipe: Path | None,
    against: tuple[Path, ...],
    clean: Path | None,
    out: Path | None,
    report_file: Path | None,
    html: Path | None,
    workers: int | None,
    fresh: bool,
) -> int:
    """Tell what is in DATA: a JSONL or Parquet file, a folder, or hf://owner/name.

    Validation and test beside the train rows of a folder, or the recipe's own, are compared with these. With --write,
    the kept rows go to CLEAN, and each rejected row with its reasons to a file beside it. The exit status is 1 where
    the recipe's filter.limits are broken.

    \b
    mlx-gemma audit datasets/python3/raw.jsonl --against evals/python3.jsonl --write clean.jsonl
    mlx-gemma audit --recipe recipes/nano.yaml
    """
    from mlx_gemma.data.audit.cache import audit_files
    from mlx_gemma.data.audit.held_out import named, splits_beside
    from mlx_gemma.data.audit.rendering import Rendering
    from mlx_gemma.data.policy import FilterPolicy
    from mlx_gemma.recipe import read_recipe

    policy, rendering, valid = FilterPolicy(), None, None
    if recipe is not None:
        read = read_recipe(recipe).recipe
        policy, valid = read.filter, read.data.valid if data is None else None
        data = data or read.data.train
        rendering = Rendering(read.model.name, read.model.revision, read.train.length, read.data.turns)
    if data is None:
        raise click.UsageError("give DATA, or --recipe with a recipe whose data are meant")
    policy = policy.model_copy(update={"malformed": "reject"})  # all of the file is wanted, whatever a training does
    rejected = clean.with_name(f"{clean.stem}.rejected.jsonl") if clean else None
    if out is not None:
        report_file, html = report_file or out / "audit.json", html or out / "audit.html"
    splits = [file for file, _ in named(splits_beside(data, valid))]
    outputs = [p for p in (clean, rejected, report_file, html) if p]
    _check_outputs(data, [*policy.contamination, *against, *splits], outputs)
    console = options.console()
    with _progress() as progress:
        report = audit_files(
            data,
            policy,
            against,
            valid=valid,
            rendering=rendering,
            workers=workers,
            progress=progress,
            use_cache=not fresh,
        )
    _print(console, report)
    if report_file is not None:
        report.write_json(report_file)
        console.print(f"everything that was found in {report_file}")
    if html is not None:
        from mlx_gemma.data.audit.page import page
        from mlx_gemma.data.write import whole_file

        with whole_file(html) as file:
            file.write(page(report))
        console.print(f"a page to look at in {html}")
    if clean is not None and rejected is not None:
        report.write(clean, rejected)
        console.print(f"kept rows in {clean}, rejected ones with their reasons in {rejected}")
    for line in report.breaches():
        console.print(f"beyond a limit: {line}", style="bold red")
    return 1 if report.breaches() else 0


def _check_outputs(data: str, others: list[Path], outputs: list[Path]) -> None:
    from mlx_gemma.data.sources import data_files
    from mlx_gemma.errors import UserError

    inputs = {file.resolve() for file in (*(file for file, _ in data_files(data)), *others)}
    for path in outputs:
        if path.resolve() in inputs:
            raise UserError("would be overwritten, and is read", where=path, fix="give --write another name")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise UserError("two outputs have this name", where=outputs[0], fix="give --json or --html another name")


@contextmanager
def _progress() -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = options.console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, told = bar.add_task("reading", total=None), time.monotonic()

        def tell(stage: str, done: int, total: int | None) -> None:
            nonlocal told
            if bar.tasks[0].description != stage:
                bar.reset(task, description=stage, total=total)
            bar.update(task, completed=done)
            if not console.is_terminal and time.monotonic() > told + SELDOM:
                told = time.monotonic()
                console.print(f"{stage}: {done:,}" + (f" of {total:,}" if total else ""))

        yield tell


def _print(console: Console, report: Report) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("check", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("action", style="dim", no_wrap=True)
    table.add_column("for example", style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
    for check, rows, action, example in report.table():
        table.add_row(check, f"{rows:,}", action, example)
    console.print(table)
    console.print(
        f"{report.read:,} rows read: {report.kept_count:,} kept, {report.rejected_count:,} rejected", style="bold"
    )
    for line in report.remarks:
        console.print(visible_line(line))
    if report.from_cache:
        console.print("from the cache: data, evals, policy and checks are those of an earlier audit", style="dim")
