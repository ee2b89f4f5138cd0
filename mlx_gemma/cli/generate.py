"""`mlx-gemma generate MODEL PROMPT`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options


@click.command()
@click.argument("model")
@click.argument("prompt")
@options.adapter
@options.gate
@options.system
@options.sampling(default_tokens=256)
def command(
    model: str,
    prompt: str,
    adapter: Path | None,
    gate: Path | None,
    system: str | None,
    temperature: float,
    top_p: float,
    top_k: int,
    seed: int,
    max_tokens: int,
) -> None:
    """Answer PROMPT with MODEL: nano, a folder, a hub id, or a run folder.

    \b
    mlx-gemma generate nano "Write a function total(numbers) that sums a list."
    mlx-gemma generate runs/nano "Write a function that reverses a string." --temperature 0.7 --seed 3
    mlx-gemma generate runs/nano "Write a function that reverses a string." --gate runs/nano/gate
    """
    from mlx_gemma.decode.generate import generate
    from mlx_gemma.decode.sample import Sampling
    from mlx_gemma.errors import visible_line
    from mlx_gemma.gemma4.load import load

    sampling = Sampling(temperature, top_p, top_k, seed)
    if gate is None:
        gemma = load(model, adapter=adapter)
    else:
        from mlx_gemma.gate.gated import open_gated

        gated = open_gated(gate, model, adapter)
        decision = gated.gate.route(prompt)
        gated.use(decision.route)
        gemma = gated.gemma
        click.echo(f"[{decision.route}: {visible_line(decision.reason)}]", err=True)
    answer = generate(gemma, prompt, system=system, sampling=sampling, max_tokens=max_tokens)
    click.echo(answer.text)
    speed = len(answer.tokens) / answer.decode_seconds if answer.decode_seconds else 0.0
    ending = "" if answer.finish == "stop" else f", cut at --max-tokens {max_tokens}"
    click.echo(f"[{len(answer.tokens)} tokens, {speed:.0f} tokens/s{ending}]", err=True)
