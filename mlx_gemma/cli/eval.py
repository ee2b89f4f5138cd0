"""`mlx-gemma eval SUITE --model MODEL`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_gemma.cli import options

if TYPE_CHECKING:
    from mlx_gemma.evaluate.contenders import Contender
    from mlx_gemma.evaluate.run import Router
    from mlx_gemma.gemma4.load import Gemma


@click.command()
@click.argument("suites", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SUITE...")
@click.option("--model", required=True, help="nano, a folder, a hub id, or a run folder.")
@options.adapter
@options.gate
@click.option("--compare", metavar="BASE", help="Also another model or run; `base`: the model without its adapter.")
@options.system
@click.option("--compare-system", metavar="TEXT", help="The other side's system turn, if not the same; '' for none.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the sampled answers.")
@click.option("--sampled/--no-sampled", default=True, help="Also the sampled answers that the suite asks for.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of an answer; by default the suite says.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Answers at once.")
@click.option("--perplexity", metavar="ROWS", help="Also the perplexity of this file's answers.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), 
    help="OUT/SUITE/MODEL/ gets results.jsonl and report.html; by default OUT is RUN/eval of a run, else runs/eval.",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Answer again what OUT has answers to.")
@click.option("--unsafe-exec", is_flag=True, help="Run the answers' code without a sandbox, as you, on this machine.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON.")
def command(
    suites: tuple[Path, ...],
    model: str,
    adapter: Path | None,
    gate: Path | None,
    compare: str | None,
    system: str | None,
    compare_system: str | None,
    seed: int,
    sampled: bool,
    max_tokens: int | None,
    batch: int,
    perplexity: str | None,
    out: Path | None,
    fresh: bool,
    unsafe_exec: bool,
    as_json: bool,
) -> None:
    """Count MODEL's bad answers to the prompts of each SUITE, and in which ways they are bad.

    Code in the answers is run in a sandbox that is first proved on this machine (docs/sandbox.md). Answers are kept: a
    run that was stopped goes on, and one that is finished is only shown. docs/eval.md tells how each verdict is found.

    \b
    mlx-gemma eval evals/python3.jsonl --model nano
    mlx-gemma eval evals/*.jsonl --model runs/python3 --compare base
    mlx-gemma eval evals/tasks.jsonl --model runs/python3 --gate runs/python3/gate --compare runs/python3
    mlx-gemma eval evals/python3.jsonl --model nano --system "Prefer Python 3." --compare-system ""
    """
    from mlx_gemma.evaluate.contenders import contenders
    from mlx_gemma.evaluate.folder import folder_for
    from mlx_gemma.evaluate.sandbox import prove, without_wall
    from mlx_gemma.evaluate.session import Session
    from mlx_gemma.evaluate.suite import read_suite
    from mlx_gemma.evaluate.table import show_session

    console = options.console(stderr=as_json)
    read = [read_suite(suite) for suite in suites]
    sides = contenders(model, adapter, system, gate=gate, compare=compare, compare_system=compare_system)
    wall = without_wall() if unsafe_exec else None
    if wall is None:
        with console.status("trying the sandbox (15 s, once after a start of the machine)"):
            prove().require()
    out = out or folder_for(sides[-1])
    session = Session(
        read, sides, out, seed=seed, sampled=sampled, max_tokens=max_tokens, batch=batch, wall=wall, gated=_gated
    )
    session.prepare(fresh=fresh)
    with console.status("loading") as status:
        done = session.run(perplexity, say=status.update)
    if as_json:
        click.echo(json.dumps(done.summary(), indent=1, ensure_ascii=False))
    else:
        show_session(console, done)


def _gated(side: Contender) -> tuple[Gemma, Router]:
    from mlx_gemma.gate.gated import open_gated

    assert side.gate is not None
    found = open_gated(side.gate, side.model, side.adapter)
    return found.gemma, found
