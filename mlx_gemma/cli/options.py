"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

adapter = click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A run folder, or a folder in mlx-lm's adapter form.",
)
system = click.option("--system", metavar="TEXT", help='A system turn, e.g. "Prefer Python 3, not Python 2."')


def sampling(default_tokens: int) -> Callable[[F], F]:
    """--temperature, --top-p, --top-k, --seed, --max-tokens."""

    def decorate(command: F) -> F:
        for option in (
            click.option("--max-tokens", type=click.IntRange(1), default=default_tokens, show_default=True),
            click.option("--seed", type=int, default=0, show_default=True, help="Of the sampling."),
            click.option("--top-k", type=int, default=0, help="Sample from the K most probable tokens only."),
            click.option(
                "--top-p", type=float, default=1.0, help="Sample from the most probable tokens that reach P together."
            ),
            click.option("--temperature", type=float, default=0.0, show_default=True, help="0 is greedy."),
        ):
            command = option(command)
        return command

    return decorate
