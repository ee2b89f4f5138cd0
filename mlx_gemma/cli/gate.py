"""`mlx-gemma gate build` and `mlx-gemma gate route`; `calibrate` and `report` are in gate_calibrate.py."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_gemma.cli import gate_calibrate, options

if TYPE_CHECKING:
    from mlx_gemma.gate.decision import Decision
    from mlx_gemma.gate.encoders import Kind

PATH = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Send each query to the specialist or to the base, with a stated rate of bad outputs (docs/gate.md).

    \b
    mlx-gemma gate build runs/nano
    mlx-gemma gate calibrate runs/nano/gate --suite evals/tasks.jsonl
    mlx-gemma gate route runs/nano/gate "Write a function that reverses a string."
    mlx-gemma generate runs/nano "Write a function that reverses a string." --gate runs/nano/gate
    """


@command.command()
@click.argument("run", type=PATH)
@click.option("--out", type=PATH, metavar="FOLDER", help="A new folder; RUN/gate if not given.")
@click.option(
    "--encoder",
    type=click.Choice(["sentence-transformers", "model2vec"]),
    default="sentence-transformers",
    show_default=True,
    help="model2vec needs no torch and starts within a second or two; compare both with gate calibrate.",
)
@click.option(
    "--encoder-model",
    metavar="NAME",
    help="A folder or hub id of that kind. By default all-MiniLM-L6-v2, or static vectors distilled from it.",
)
@click.option("--name", metavar="NAME", help="Of the specialist, as routes have it; RUN's own if not given.")
def build(run: Path, out: Path | None, encoder: Kind, encoder_model: str | None, name: str | None) -> None:
    """Encode the prompts that RUN was trained on, and write them as a new gate.

    The gate's folder holds the training texts: treat it as you treat these. Before it is calibrated it sends every
    query to the base.
    """
    from mlx_gemma.gate.build import build as build_gate

    console = options.console()
    with console.status("reading the rows, loading the encoder") as status:
        built = build_gate(
            run,
            out,
            kind=encoder,
            model=encoder_model,
            name=name,
            progress=lambda done, total: status.update(f"encoding {done:,} of {total:,} rows"),
        )
    spec = built.encoder.spec
    console.print(
        f"{built.rows:,} rows, {built.distinct:,} different prompts, by {spec.name} ({spec.dimension} dimensions)"
    )
    console.print(f"in {built.folder}; then: mlx-gemma gate calibrate {built.folder} --suite FILE")


@command.command()
@click.argument("gate", type=PATH)
@click.argument("query")
@click.option("--rows", type=click.IntRange(0, 20), default=3, show_default=True, help="Nearest rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
def route(gate: Path, query: str, rows: int, as_json: bool) -> None:
    """Say where GATE sends QUERY, by which score and why; no model is loaded."""
    import json
    import time

    from mlx_gemma.gate.route import Gate

    found = Gate.load(gate)
    started = time.perf_counter()
    decision = found.route(query, rows)
    loaded = time.perf_counter() - started - decision.milliseconds["all"] / 1e3
    if as_json:
        click.echo(json.dumps(decision.as_json() | {"load_seconds": loaded}, allow_nan=False))
        return
    show(decision, loaded)


def show(decision: Decision, loaded: float) -> None:
    """Print a decision. `loaded`: seconds that loading the encoder took."""
    from rich.table import Table

    from mlx_gemma.data.visible import one_line

    console = options.console()
    console.print(f"route        {decision.route} ({decision.band})", style="bold")
    console.print(f"why          {decision.reason}")
    out = "" if decision.out_threshold is None else f", out below {decision.out_threshold:.3f}"
    limit = "none" if decision.threshold is None else f"{decision.threshold:.3f}"
    score = "none" if math.isnan(decision.score) else f"{decision.score:.3f}"
    console.print(f"score        {decision.score_name} {score}, threshold {limit}{out}")
    if decision.confidence is not None:
        console.print(f"confidence   {decision.confidence:.0%} that the specialist's output is not bad")
    ms = decision.milliseconds
    console.print(
        f"time         encode {ms['encode']:.1f} ms, search {ms['search']:.1f} ms; encoder loaded in {loaded:.1f} s"
    )
    if decision.nearest:
        table = Table("similarity", "row", "prompt", box=None, pad_edge=False, header_style="bold")
        for near in decision.nearest:
            table.add_row(f"{near.similarity:.3f}", near.where, one_line(near.prompt, 80))
        console.print(table)


command.add_command(gate_calibrate.calibrate)
command.add_command(gate_calibrate.report)
