"""A row as markup: its turns, what was found in them marked, and beside it the row that it repeats or contradicts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from mlx_gemma.data.audit.findings import Found
from mlx_gemma.data.audit.page.choose import PAIRS, Cluster, Shown
from mlx_gemma.data.audit.page.text import clean, differences, marked
from mlx_gemma.data.formats import BadRow, Row
from mlx_gemma.data.reason import Reason
from mlx_gemma.html_page import Html, el, html

TURNS = 6  # of a row
REASONS = 12
PLACE = re.compile(r"(?:turn (\d+)[^,:]{0,20}, )?line (\d+), column (\d+)")  # as messages begin; without turn: the last


def example(found: Found, check: str, shown: Shown) -> Html:
    """A row in which a check found something, to be opened. `data-names`: the kinds of thing found, a line each."""
    own = [r for r in found.reasons if r.check == check]
    names = list(dict.fromkeys(clean(r.name, 80) for r in own if r.name))
    more = f" (+{len(own) - 1})" if len(own) > 1 else ""
    head = el(
        "summary",
        el("span", place(found.where), class_="where", title=clean(found.where)),
        " ",
        el("span", clean(own[0].message) + more, class_="message"),
    )
    reasons = [
        el("li", el("b", r.check.replace("_", " ")), " ", el("bdi", clean(r.message, 400)))
        for r in found.reasons[:REASONS]
    ]
    row = shown.rows[found.row]
    body = html(
        el("p", el("code", clean(found.where, 400)), class_="quiet"),
        el("ul", *reasons, class_="reasons"),
        el("p", "The row could not be read.", class_="quiet") if isinstance(row, BadRow) else _row(row, found, shown),
    )
    return el("details", head, body, class_="example", data_names="\n".join(names))


def cluster(one: Cluster, shown: Shown) -> Html:
    """A row kept and its duplicates, to be opened."""
    row = shown.others[one.where]
    members = [
        el("li", el("span", place(where), class_="where"), " ", el("bdi", clean(message)))
        for where, message in one.members
    ]
    if one.size > len(one.members):
        members.append(el("li", f"and {one.size - len(one.members):,} more", class_="quiet"))
    head = el(
        "summary",
        el("span", f"{one.size:,} left out", class_="count"),
        " ",
        el("span", place(one.where), class_="where"),
        " ",
        el("span", clean(row.messages[-2]["content"]), class_="message"),
    )
    return el("details", head, _turns(row, ()), el("ol", *members, class_="members"), class_="cluster")


def place(where: str) -> str:
    """`file:line` without the folder."""
    return clean(where.rpartition("/")[2], 80)


def _row(row: Row, found: Found, shown: Shown) -> Html:
    of = next((r.of for r in found.reasons if r.check in PAIRS[1:] and r.of in shown.others), None)
    if of is None:
        return _turns(row, found.reasons)
    pairs = list(zip_longest(row.messages, shown.others[of].messages, fillvalue={"role": "", "content": ""}))[:TURNS]
    texts = [differences(mine["content"], its["content"]) for mine, its in pairs]
    sides = (
        html(*(_turn(m[side]["role"], t[side]) for m, t in zip(pairs, texts, strict=True) if m[side]["role"]))
        for side in (0, 1)
    )
    titles = "this row", f"{place(of)}, kept"
    return el("div", *(el("div", el("h4", t), s) for t, s in zip(titles, sides, strict=True)), class_="sides")


def _turns(row: Row, reasons: Sequence[Reason]) -> Html:
    """The turns with something marked, then the last and the first ones: TURNS at most, in order."""
    places: dict[int, list[tuple[int, str]]] = {}
    for reason in reasons:
        if (at := PLACE.match(reason.message)) and 1 <= (turn := int(at[1] or len(row.messages))) <= len(row.messages):
            offset = _offset(row.messages[turn - 1]["content"], int(at[2]), int(at[3]))
            places.setdefault(turn - 1, []).append((offset, reason.message))
    last = len(row.messages) - 1
    numbers = sorted(list(dict.fromkeys([*places, last, *range(last)]))[:TURNS])
    turns = [_turn(row.messages[n]["role"], marked(row.messages[n]["content"], places.get(n, ()))) for n in numbers]
    left = last + 1 - len(numbers)
    return html(*turns, el("p", f"{left:,} more turns", class_="quiet") if left else "")


def _turn(role: str, text: Html) -> Html:
    return el("div", el("span", role, class_="role"), el("pre", text), class_=f"turn {role}")


def _offset(text: str, line: int, column: int) -> int:
    start = 0
    for _ in range(line - 1):
        end = text.find("\n", start)
        if end < 0:
            break
        start = end + 1
    return min(start + column - 1, len(text))
