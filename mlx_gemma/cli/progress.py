"""What `mlx-gemma lora` shows: the recipe, the plan, the run while it runs, and the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from mlx_gemma import run
from mlx_gemma.data.visible import visible
from mlx_gemma.errors import visible_line
from mlx_gemma.recipe import known_keys

if TYPE_CHECKING:
    from mlx_gemma.recipe import Resolved
    from mlx_gemma.training.plan import Plan
    from mlx_gemma.training.prepare import Prepared
    from mlx_gemma.training.record import Progress

KEYS_WIDTH = 100  # columns


def print_recipe(console: Console, resolved: Resolved) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("key", "value", "from"):
        table.add_column(name, style="dim" if name == "from" else "")
    for key, value, source in resolved.rows():
        table.add_row(key, Text(value), source)
    console.print(table)


def print_keys(console: Console) -> None:
    """Every key of a recipe with its default, what it may be, and its consequence."""
    if not console.is_terminal:
        console.width = KEYS_WIDTH
    table = Table(
        box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), width=min(console.width, KEYS_WIDTH)
    )
    table.add_column("key", style="bold", no_wrap=True)
    table.add_column("default", max_width=13)
    table.add_column("give", ratio=2)
    table.add_column("consequence", ratio=3)
    for name, key in known_keys().items():
        table.add_row(name, "(required)" if key.default is None else key.default, key.allowed, key.consequence)
    console.print(table)


def print_plan(console: Console, plan: Plan) -> None:
    console.rule(style="dim")
    for line in plan.audit:
        console.print(Text(line), no_wrap=True, overflow="ellipsis")
    lengths = ", ".join(f"{k} {v}" for k, v in plan.lengths.items())
    cut = f"{plan.cut} rows cut, {plan.dropped} of them dropped with nothing left to train"
    if plan.cut_elsewhere:
        cut += f"; to measure: {plan.cut_elsewhere} cut, {plan.dropped_elsewhere} of them dropped"
    modules = ", ".join(f"{k} {v}" for k, v in plan.modules.items())
    for name, value in (
        ("adapter", f"{plan.parameters:,} parameters on {sum(plan.modules.values())} modules ({modules})"),
        (
            "rows",
            f"{plan.rows:,} to train with {plan.targets:,} supervised tokens; {plan.valid_rows:,} to validate "
            f"({plan.valid_rejected} left out)",
        ),
        ("tokens a row", f"{lengths}; {cut}"),
        ("updates", f"{plan.steps:,}"),
        (
            "peak memory",
            f"about {plan.peak_bytes / 1e9:.2f} GB predicted; MLX may use {plan.memory_bytes / 1e9:.1f} GB here",
        ),
    ):
        console.print(f"[bold]{name:<13}[/] {value}")


def print_advice(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(Text.assemble(("consider     ", "bold yellow"), line))


def print_examples(console: Console, prepared: Prepared, count: int = 3) -> None:
    """Rows as the model sees them, the supervised tokens marked."""
    template, split = prepared.gemma.template, prepared.train
    for i in range(min(count, len(split.examples))):
        example = split.examples[i]
        text = Text()
        for trained, part in groupby(zip(example.tokens, example.supervised, strict=True), key=itemgetter(1)):
            shown = visible(template.decode([token for token, _ in part]))
            if trained:  # the brackets are for logs and pipes, which have no colour
                text.append("⟦", "bold green").append(shown, "reverse green").append("⟧", "bold green")
            else:
                text.append(shown, "dim")
        told = f"  {len(example.tokens)} tokens, {example.targets} of them trained, between ⟦ and ⟧"
        console.print(Text.assemble("\n", (visible_line(split.where[i]), "bold"), told))
        console.print(text)


@contextmanager
def live(console: Console, steps: int) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal; elsewhere a line for every tenth of the run and every validation."""
    columns = [
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  valid {task.fields[valid]}  {task.fields[speed]}  {task.fields[memory]}"),
        TimeRemainingColumn(),
    ]
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps, loss="-", valid="-", speed="", memory="")
        losses: list[float] = []
        tokens, begun = 0, 0.0

        def report(p: Progress) -> None:
            nonlocal tokens, begun
            if tokens == 0:  # a resumed run's seconds begin where it was stopped
                begun = p.seconds - p.tokens / max(p.tokens_per_second, 1e-9)
            losses.extend([p.loss] * math.isfinite(p.loss))
            tokens += p.tokens
            shown = f"{sum(losses[-10:]) / len(losses[-10:]):.3f}" if losses else "-"
            speed, memory = f"{p.tokens_per_second:,.0f} tokens/s", f"{p.peak_memory_gb:.2f} GB"
            if p.seconds > 0 and tokens > p.tokens:  # one update says little
                speed = f"{tokens / (p.seconds - begun):,.0f} tokens/s"
            if p.skipped:
                console.print(
                    Text(f"update {p.step} was skipped, its loss or gradient is not finite: {p.skipped}", "red")
                )
            bar.update(task, completed=p.step, loss=shown, speed=speed, memory=memory)
            if p.valid_loss is not None:
                bar.update(task, valid=f"{p.valid_loss:.3f}")
            if not console.is_terminal and (p.valid_loss is not None or p.step % max(1, steps // 10) == 0):
                valid = f"  valid {p.valid_loss:.3f}" if p.valid_loss is not None else ""
                console.print(f"update {p.step}/{steps}  loss {shown}{valid}" + f"  {speed}  {memory}" * (p.step > 0))

        yield report


def print_result(console: Console, folder: Path) -> None:
    result = run.read_manifest(folder)["result"]
    valid = ""
    if result["valid_loss"] is not None:
        valid = f", validation {result['valid_loss_before']:.3f} -> {result['valid_loss']:.3f}"
    console.rule(style="dim")
    console.print(
        f"[bold]loss {result['loss']:.3f} (last ten updates){valid}[/] "
        f"after {result['steps']} updates in {result['seconds']:.0f} s, "
        f"peak {result['peak_memory_gb']:.2f} GB"
    )
    if result["kept"] < result["steps"]:
        console.print(f"kept the adapter of update {result['kept']}, of the lowest validation loss")
    if result["regression"]:
        console.print(
            "regression rows (data.regression): loss {before:.3f} -> {after:.3f}".format(**result["regression"])
        )
    diagnosis = result["diagnosis"]
    console.print(Text.assemble((diagnosis["kind"], "bold"), f": {diagnosis['sentence']}; {diagnosis['advice']}"))
    console.print(f'run folder {folder}: try  mlx-gemma generate {folder} "Write a function that reverses a string."')
