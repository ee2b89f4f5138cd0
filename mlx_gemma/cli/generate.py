"""`mlx-gemma generate MODEL PROMPT`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options


@click.command()
@click.argument("model")
@click.argument("prompt")
@options.adapter
@options.system
@options.sampling(default_tokens=256)
def command(
    model: str,
    prompt: str,
    adapter: Path | None,
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
    """
    from mlx_gemma.decode.generate import generate
    from mlx_gemma.decode.sample import Sampling
    from mlx_gemma.gemma4.load import load

    sampling = Sampling(temperature, top_p, top_k, seed)
    answer = generate(load(model, adapter=adapter), prompt, system=system, sampling=sampling, max_tokens=max_tokens)
    click.echo(answer.text)
    speed = len(answer.tokens) / answer.decode_seconds if answer.decode_seconds else 0.0
    ending = "" if answer.finish == "stop" else f", cut at --max-tokens {max_tokens}"
    click.echo(f"[{len(answer.tokens)} tokens, {speed:.0f} tokens/s{ending}]", err=True)
