"""`mlx-gemma verify A B`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click

from mlx_gemma.cli import options


@click.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--prompts", type=click.Path(path_type=Path), metavar="FILE", help="JSON Lines with `prompt`, as evals/ has."
)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Prompts of FILE at most.")
@click.option("--base", metavar="MODEL", help="The base of an adapter; of a GGUF adapter a GGUF, to ask llama.cpp.")
@click.option("--ours", is_flag=True, help="Read both sides with mlx-gemma; ask no other program.")
def command(a: str, b: str, prompts: Path | None, limit: int, base: str | None, ours: bool) -> int:
    """Compare what two artefacts compute: A, and B against it. Exits 1 if they differ by more than rounding explains.

    Either is a model (nano, a Hugging Face or mlx-lm folder, a hub id), a run folder, a PEFT adapter, or a GGUF of a
    model or an adapter. Each is loaded by its own program where that is installed (transformers, PEFT, mlx-lm,
    llama.cpp), otherwise by mlx-gemma.

    \b
    mlx-gemma verify runs/nano runs/nano/hf
    mlx-gemma verify runs/nano runs/nano/model.gguf --prompts evals/tasks.jsonl
    """
    from mlx_gemma.data.records import read_eval_items
    from mlx_gemma.gemma4.checkpoint import find
    from mlx_gemma.gemma4.template import ChatTemplate
    from mlx_gemma.interop import compare
    from mlx_gemma.interop.artefact import identify
    from mlx_gemma.interop.verify import verify

    items = (item.prompt for item in read_eval_items(prompts)) if prompts else (q for q, _ in compare.CONVERSATIONS)
    asked = list(islice(items, limit))
    sides = [identify(name, base) for name in (a, b)]
    given = base and not base.endswith(".gguf") and all(side.base is None for side in sides)
    template = ChatTemplate(find(base).folder) if given and base else None
    console = options.console()
    with console.status("comparing"):
        found = verify(sides[0], sides[1], asked, template=template, ours=ours)
    for side, program in zip(sides, found.programs, strict=True):
        console.print(f"{side.name}: {side.kind}, {side.precision}, by {program}")
    gap = found.gap
    verdict = "the same function" if found.equal else "NOT the same function"
    console.print(
        f"{verdict}: mean logit difference {gap.mean:.1e}, accepted {found.accepted.mean:.1e}\n"
        f"the same greedy text on {found.same} of {found.prompts} prompts",
        style="bold",
    )
    console.print(
        f"KL {gap.kl:.1e} nats, accepted {found.accepted.kl:.1e}; max {gap.largest:.1e}, "
        f"the same most probable token in {gap.agreement:.1%}"
    )
    return int(not found.equal)
