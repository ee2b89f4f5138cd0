"""What several commands share: options, the kind of file that they write, and the terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

adapter = click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A run folder, or a folder in mlx-lm's adapter form.",
)
gate = click.option(
    "--gate",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A gate of this adapter: it says whether the adapter answers, or the base alone (docs/gate.md).",
)
system = click.option("--system", metavar="TEXT", help='A system turn, e.g. "Prefer Python 3, not Python 2."')


class OutputFile(click.Path):
    """A file that is written after minutes of work: whether it can be is found out before."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, writable=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not os.access(path.parent, os.W_OK | os.X_OK):
            self.fail(f"the folder of {path} is not there, or cannot be written to.", param, ctx)
        return path


def needs(ctx: click.Context, name: str, other: str, given: bool) -> None:
    """Refuse an option that does nothing without another one, rather than leave it out without a word."""
    from click.core import ParameterSource

    if not given and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        option = next(p.opts[0] for p in ctx.command.params if p.name == name)
        raise click.UsageError(f"{option} does nothing without {other}.", ctx)


def console(*, stderr: bool = False) -> Console:
    """The terminal, where no text is markup: data and paths are shown as they are."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, stderr=stderr)


def max_tokens(default: int) -> Callable[[F], F]:
    return click.option(
        "--max-tokens", type=click.IntRange(1), default=default, show_default=True, help="Cut the answer after so many."
    )


def sampling(default_tokens: int) -> Callable[[F], F]:
    """--temperature, --top-p, --top-k, --seed, --max-tokens."""

    def decorate(command: F) -> F:
        for option in (
            max_tokens(default_tokens),
            click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling."),
            click.option(
                "--top-k",
                type=int,
                default=0,
                show_default=True,
                metavar="K",
                help="Sample from the K most probable tokens only; 0: off.",
            ),
            click.option(
                "--top-p",
                type=float,
                default=1.0,
                show_default=True,
                metavar="P",
                help="Sample from the most probable tokens that reach P together; 1: off.",
            ),
            click.option("--temperature", type=float, default=0.0, show_default=True, help="0 is greedy."),
        ):
            command = option(command)
        return command

    return decorate
