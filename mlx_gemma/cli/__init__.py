"""The command line: one verb a file, imported only when it is called, so that `mlx-gemma --help` takes milliseconds.

A user's mistake is one line on stderr and exit status 2; Ctrl-C is one line and 130; anything else keeps its traceback.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from mlx_gemma import __version__
from mlx_gemma.errors import Interrupted, UserError

COMMANDS = {
    "lora": "Train a LoRA adapter from a recipe.",
    "sweep": "Train a recipe with several values of its keys, and compare the runs.",
    "generate": "Answer a prompt.",
    "trace": "Answer a prompt and show every token's probability and its rivals.",
    "audit": "Tell what is in a data set, and write the rows that should be trained.",
    "data": "Make the project's own data sets, and cards for any.",
    "eval": "Count bad outputs over a suite of prompts, with and without an adapter.",
    "gate": "Send each query to the specialist or the base, with a stated error rate.",
    "export": "Write base and adapter as one model for other programs.",
    "import": "Make a run folder of an adapter from PEFT or mlx-lm.",
    "verify": "Compare what two models, adapters or exports compute, each in its own program.",
    "bench": "Measure seconds per query, beside mlx-lm.",
    "doctor": "Tell what this machine offers, and what is missing.",
}


class LazyGroup(click.Group):
    """Finds `mlx_gemma.cli.<verb>.command` when it is needed; help texts of the list stand above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = {"import": "import_"}.get(cmd_name, cmd_name)  # a keyword
        command: click.Command = import_module(f"mlx_gemma.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mlx-gemma")
def cli() -> None:
    """Fine-tune Gemma 4 with LoRA on Apple Silicon, and see what happened, token by token and row by row."""


def main() -> None:
    """The console script."""
    try:
        status = cli(standalone_mode=False)
    except UserError as e:
        click.echo(f"mlx-gemma: {e}", err=True)
        sys.exit(130 if isinstance(e, Interrupted) else 2)
    except click.ClickException as e:
        click.echo(f"mlx-gemma: {' '.join(e.format_message().split())}", err=True)  # some take several lines
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("mlx-gemma: interrupted; what is on disk is whole", err=True)
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)
