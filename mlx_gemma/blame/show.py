"""Blame for the eye: the question, the data's answer, the causes, the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from mlx_gemma.blame.ask import Question
from mlx_gemma.blame.corpus import Corpus
from mlx_gemma.blame.index import NO_TOKEN
from mlx_gemma.blame.lexical import Ladder, sentence
from mlx_gemma.gemma4.template import ChatTemplate
from mlx_gemma.tracing.record import Trace
from mlx_gemma.tracing.render import plain_table, visible

if TYPE_CHECKING:
    from mlx_gemma.blame.influence import Blamed, Influence
    from mlx_gemma.blame.proof import Proof

AROUND = 20  # characters before and after a token


def question(trace: Trace, asked: Question) -> list[Any]:
    token, rival = asked.token, asked.rival
    head = f"position {asked.position.index}: {visible(token.text)} {token.probability:.1%}, against "
    return [trace.text, Text(f"{head}{visible(rival.text)} {rival.probability:.1%}", style="bold")]


def data(ladder: Ladder, asked: Question, rows: int) -> list[Any]:
    """What the data says, of the token and of its rival, and where."""
    out: list[Any] = [Text("\nwhat the data says", style="bold")]
    if ladder.longest is not None:
        longest = ladder.longest
        out.append(
            f"the longest end of the context that it has: {counted(longest.length, 'token')}, in "
            f"{counted(longest.places, 'place')} of {counted(longest.rows, 'row')}"
        )
    for one in (asked.token, asked.rival):
        out.append(sentence(ladder, one.token, one.probability))
        hits = ladder.rows(one.token, limit=min(3, rows))
        for hit in hits:
            shared = counted(hit.shared, "token")
            out.append(f"    {hit.where}, {counted(hit.places, 'place')}, {shared} of context shared")
    return out


def causes(found: Influence, corpus: Corpus, template: ChatTemplate, rows: int) -> list[Any]:
    """The rows that raised the token against its rival, and those that lowered it, each where it did so most."""
    shown = [*found.rows[:rows], None, *found.rows[max(rows, len(found.rows) - rows) :]]
    folders = {b.where.rpartition("/")[0] for b in shown if b is not None}
    folder = folders.pop() if len(folders) == 1 else ""
    table = plain_table("nats", "row", "where in it")
    for b in shown:
        if b is None:
            table.add_row("…", "", "")
        else:
            table.add_row(f"{b.score:+.4f}", b.where.removeprefix(f"{folder}/"), _place(b, corpus, template))
    text = (
        "ranked by the last snapshot's part over the square root of the row's gradient, lest rows that move everything "
        "stand first; to first order: all rows together overshoot what training changed"
    )
    if not found.preconditioned:
        text += "; this optimiser's scaling of the gradients is not in them"
    head = "\nwhat caused it, in nats for the token against its rival"
    if folder:
        head += f"; rows of {folder}/"
    return [Text(head, style="bold"), table, text]


def _place(blamed: Blamed, corpus: Corpus, template: ChatTemplate) -> Text:
    """The token with the largest share of a row's score, between its neighbours."""
    ids, at = (corpus.row(blamed.row)[1:] & NO_TOKEN).tolist(), blamed.token
    before, token, after = (visible(template.decode(part)) for part in (ids[:at], [ids[at]], ids[at + 1 :]))
    return Text.assemble((before[-AROUND:], "dim"), (token, "bold"), (after[:AROUND], "dim"))


def proof(found: Proof, asked: Question) -> Group:
    table: Table = plain_table("trained on", visible(asked.token.text), visible(asked.rival.text), "token / both")
    for name, answers in (
        ("all rows", found.original),
        (f"all but the {found.removed} blamed ones", found.without_blamed),
        *((f"all but {found.removed} random ones", answers) for answers in found.without_random),
    ):
        both = answers.token + answers.rival
        share = f"{answers.token / both:.1%}" if both else ""
        table.add_row(name, f"{answers.token:.1%}", f"{answers.rival:.1%}", share)
    return Group(Text("\nthe proof", style="bold"), table)


def counted(number: int, name: str) -> str:
    """3 rows, 1 row"""
    return f"{number:,} {name}{'' if number == 1 else 's'}"
