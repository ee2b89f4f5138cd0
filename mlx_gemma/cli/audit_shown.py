"""What `mlx-gemma audit` shows: how far it is, and what it found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlx_gemma.cli import options
from mlx_gemma.errors import visible_line

if TYPE_CHECKING:
    from rich.console import Console

    from mlx_gemma.data.audit import Progress, Report

SELDOM = 30  # seconds between two lines about the progress, where there is no terminal


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on a terminal; elsewhere a line every SELDOM seconds."""
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


def print_report(console: Console, report: Report) -> None:
    """The table of checks, the counts, and what concerns the set as a whole."""
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
