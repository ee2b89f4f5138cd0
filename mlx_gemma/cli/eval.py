"""`mlx-gemma eval SUITE --model MODEL`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options


@click.command()
@click.argument("suite", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="nano, a folder, a hub id, or a run folder.")
@options.adapter
@options.system
@options.max_tokens(192)
@click.option("--save", type=options.OutputFile(), help="Write every answer and its verdict to this JSONL file.")
def command(
    suite: Path, model: str, adapter: Path | None, system: str | None, max_tokens: int, save: Path | None
) -> None:
    """Count bad outputs of greedy answers to SUITE's prompts: of MODEL, and with --adapter before and after it.

    Code in the answers is executed in a sandbox (docs/sandbox.md), each in a process of its own with limits on time and
    memory. This command does not yet prove the sandbox on your machine first: use it with models you trust.

    \b
    mlx-gemma eval evals/python3.jsonl --model nano --adapter runs/nano
    """
    from rich.table import Table

    from mlx_gemma.data.write import write_jsonl
    from mlx_gemma.evaluate.judge import read_suite
    from mlx_gemma.evaluate.suite import Outcome, run_suite
    from mlx_gemma.gemma4 import lora
    from mlx_gemma.gemma4.load import load

    console = options.console()
    items = read_suite(suite)
    # Both halves on the base that the adapter was trained on; and a fault of the second is told before the first.
    quantization = lora.quantization_of(adapter) if adapter else {}
    outcomes: dict[str, Outcome] = {}
    gemma = load(model, **quantization)
    if adapter:
        lora.check_base(adapter, gemma.checkpoint)
    with console.status("answering") as status:
        for name in ("before", "after") if adapter else ("answers",):
            if name == "after" and adapter:
                lora.load_adapter(gemma.model, adapter)
            count = iter(range(1, len(items) + 1))
            outcomes[name] = run_suite(
                gemma,
                items,
                system=system,
                max_tokens=max_tokens,
                done=lambda a, name=name, count=count: status.update(f"{name}: {next(count)}/{len(items)}"),  # type: ignore[misc]
            )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("verdict")
    for name in outcomes:
        table.add_column(name, justify="right")
    for verdict in next(iter(outcomes.values())).rates():
        table.add_row(verdict, *(str(o.rates()[verdict]) for o in outcomes.values()))
    table.add_row("bad outputs", *(str(o.bad) for o in outcomes.values()), style="bold")
    console.print(table)
    console.print("count, share and Wilson 95 % interval; greedy; bad: all but good", style="dim")
    if save is not None:
        write_jsonl(
            save,
            (
                {"side": side, "id": a.item.id, "prompt": a.item.prompt, "text": a.text, **vars(a.verdict)}
                for side, o in outcomes.items()
                for a in o.answers
            ),
        )
