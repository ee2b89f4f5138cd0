"""`mlx-gemma trace blame RUN PROMPT`."""

from __future__ import annotations

from pathlib import Path

import click

from mlx_gemma.cli import options
from mlx_gemma.errors import UserError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("prompt")
@options.system
@click.option("--at", type=click.IntRange(0), metavar="N", help="The position; default: the least certain one.")
@click.option("--token", metavar="TEXT", help="The first position whose token is TEXT, blanks aside.")
@click.option("--instead", metavar="TEXT", help="The rival token; default: the most probable other one.")
@click.option("--force", metavar="TEXT", help="Ask about this answer instead of RUN's own.")
@click.option("--data-only", is_flag=True, help="What the data says, and no gradients.")
@click.option("--rows", type=click.IntRange(1), default=8, show_default=True, help="Rows shown of each kind.")
@click.option("--retrain", is_flag=True, help="The proof: train again without the blamed rows, and without others.")
@click.option("--remove", type=click.IntRange(1), default=50, show_default=True, help="For --retrain: rows left out.")
@click.option("--controls", type=click.IntRange(1), default=1, show_default=True, help="For --retrain: random choices.")
@options.max_tokens(128)
def command(
    run: Path,
    prompt: str,
    system: str | None,
    at: int | None,
    token: str | None,
    instead: str | None,
    force: str | None,
    data_only: bool,
    rows: int,
    retrain: bool,
    remove: int,
    controls: int,
    max_tokens: int,
) -> None:
    """From a token of RUN's answer to the training rows behind it.

    First what the data says: how it goes on after the longest end of the context that it has. Then what caused it: the
    rows whose gradients moved the token against its rival, in nats, with their signs. Then, with --retrain, the proof.

    \b
    mlx-gemma trace blame runs/demo "Print the numbers from 1 to 5."
    mlx-gemma trace blame runs/demo "Print the numbers from 1 to 5." --at 4 --retrain --controls 3
    """
    if data_only and retrain:
        raise UserError(
            "no gradients, and a proof of them", where="--data-only", fix="leave out one of --data-only and --retrain"
        )
    from mlx_gemma.blame import ask, show
    from mlx_gemma.blame.lexical import continuations
    from mlx_gemma.blame.trained import corpus_of_run
    from mlx_gemma.gemma4.load import load
    from mlx_gemma.run import read_manifest
    from mlx_gemma.tracing.record import trace

    console = options.console()
    read_manifest(run)  # whether it is a run is known before its model is loaded
    gemma = load(str(run))
    corpus = corpus_of_run(run, gemma.template)
    found = trace(gemma, prompt, system=system, max_tokens=max_tokens, top=20, force=force)
    question = ask.question(gemma, found, at=at, token=token, instead=instead)
    for part in show.question(found, question):
        console.print(part)
    for part in show.data(continuations(corpus, gemma.template, question.context), question, rows):
        console.print(part)
    if data_only:
        return
    from mlx_gemma.blame.influence import influence

    with console.status("following the gradients"):
        caused = influence(gemma, run, question.context, [question.token.token], [question.rival.token])
    for part in show.causes(caused, corpus, gemma.template, rows):
        console.print(part)
    if retrain:
        from mlx_gemma.blame.proof import prove

        blamed = [b.row for b in caused.rows[:remove] if b.culpability > 0]
        del gemma  # two models would not fit where one does
        with console.status("training again") as status:
            proof = prove(
                run,
                question.context,
                question.token.token,
                question.rival.token,
                blamed,
                controls=controls,
                report=lambda name, p: status.update(f"{name}: update {p.step}, loss {p.loss:.3f}"),
            )
        console.print(show.proof(proof, question))
