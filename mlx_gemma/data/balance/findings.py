"""What should not be overlooked in the balance of a data set: one Reason each, about the set as a whole.

Licences that are missing, unknown, or ask something; answers that never disagree, or often refuse; templates. Shares
are judged from ENOUGH rows on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlx_gemma.data.balance import licences
from mlx_gemma.data.reason import Reason

if TYPE_CHECKING:
    from mlx_gemma.data.balance.counts import Balance

CHECK = "balance"

ENOUGH = 50  # rows: with fewer, shares say nothing
TEMPLATED = 0.2  # share of rows with the same opening, from which on it is a finding
PUSHBACK = 0.01  # share of answers that correct or push back, below which it is one
REFUSALS = 0.1  # share of refusals, above which it is one
NAMED = 3  # licences named in a finding


def findings(balance: Balance) -> Iterator[Reason]:
    """What should not be overlooked, about the whole set: each names its first rows, `of` is None."""
    if balance.rows:
        yield from _about_licences(balance)
    if balance.rows >= ENOUGH:
        yield from _about_stances(balance)
        yield from _about_openings(balance)


def _about_licences(balance: Balance) -> Iterator[Reason]:
    table = balance.tables["licences"]
    if missing := balance.rows - table.total:
        yield _found(balance, "no licence", f"{_share(balance, missing)} name no licence", "missing")
    names = table.most()
    asks = {
        "unknown": "have a licence that is no known name",
        "own terms": "are under a model's or company's own terms: read what they say of training",
        "share-alike": "are under a share-alike licence: what is made from them may have to carry it",
        "non-commercial": "are under a licence that forbids commercial use",
        "no-derivatives": "are under a licence that forbids changed versions",
    }
    for kind, says in asks.items():
        of_kind = [(name, n) for name, n in names if licences.kind(name) == kind]
        if of_kind:
            which = ", ".join(name for name, _ in of_kind[:NAMED])
            share = _share(balance, sum(n for _, n in of_kind))
            yield _found(balance, f"{kind} licence", f"{share} {says} ({which})", kind)
    for one, other, why in licences.conflicts(name for name, _ in names):
        yield Reason(CHECK, f"{one} and {other} are in one data set: {why}", "licence conflict")


def _about_stances(balance: Balance) -> Iterator[Reason]:
    against = balance.stances["correction"] + balance.stances["pushback"]
    if balance.judged >= max(ENOUGH, balance.rows / 2) and against < PUSHBACK * balance.judged:
        some = f"only {against} of {balance.judged}" if against else f"none of {balance.judged}"
        says = (
            f"{some} answers correct a request or object to it: a model tuned on answers that always comply learns "
            "to follow a wrong or misleading request too; mix in such rows (mlx-gemma data build --pushback 0.1)"
        )
        yield Reason(CHECK, says, "no pushback")
    if balance.stances["refusal"] > REFUSALS * max(1, balance.judged):
        yield _found(balance, "many refusals", f"{_share(balance, balance.stances['refusal'])} refuse", "refusal")


def _about_openings(balance: Balance) -> Iterator[Reason]:
    for part, openings in balance.openings.items():
        for text, n in openings.most(1):
            if n >= TEMPLATED * balance.rows:
                says = f"{_share(balance, n)} have {part} that begin {text!r}: one template, learnt as such"
                yield Reason(CHECK, says, f"templated {part}")


def _share(balance: Balance, n: int) -> str:
    return f"{n} of {balance.rows} rows ({n / balance.rows:.1%})"


def _found(balance: Balance, name: str, says: str, what: str) -> Reason:
    places = balance.examples.get(what)
    return Reason(CHECK, f"{says}, as {', '.join(places)}" if places else says, name)
