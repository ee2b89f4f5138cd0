"""Text of a data set as markup: nothing hidden in it, secrets and personal data masked, of a long one only a part.

clean("mail to ada@lovelace.org")            # one line: "mail to ada@… (16 characters)"
marked(answer, [(17, "xrange: ...")])        # what is at character 17 in <mark>
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from mlx_gemma.data.checks.personal import find_personal
from mlx_gemma.data.checks.secrets import Found, find_secrets, masked, redacted, without_overlaps
from mlx_gemma.data.visible import one_line, visible
from mlx_gemma.html_page import Html, el, html

SHOWN = 1600  # characters of a text
BEFORE = 400  # of these, before what is marked in a long one
MARGIN = 8192  # characters beside these that are searched for secrets, which may begin or end there
WORD = re.compile(r"\w{1,40}|[^\w\s]{1,40}")
WORDS = re.compile(r"\w+|\s+|[^\w\s]")


class Span(NamedTuple):
    """What is shown of `text[start:end]`, and why it is marked."""

    start: int
    end: int
    shown: str
    title: str


def clean(text: object, limit: int = 200) -> str:
    """The beginning of a text as one line."""
    beginning = str(text)[: 4 * limit + MARGIN]
    return one_line(redacted(beginning, _private(beginning)), limit)


def marked(text: str, places: Sequence[tuple[int, str]] = ()) -> Html:
    """A text with what stands at each place marked.

    Args:
        places: (character, what was found there); the first one decides which part of a long text is shown.
    """
    low, high = _window(text, min((at for at, _ in places), default=0))
    start = max(0, low - MARGIN)
    hidden = [f._replace(start=f.start + start, end=f.end + start) for f in _private(text[start : high + MARGIN])]
    titles = {next((f.start for f in hidden if f.start <= at < f.end), at): title for at, title in reversed(places)}
    spans = [Span(f.start, f.end, masked(text[f.start : f.end]), titles.pop(f.start, f.name)) for f in hidden]
    for at, title in titles.items():
        word = WORD.match(text, at)
        end = min((f.start for f in hidden if f.start > at), default=len(text))
        end = min(end, word.end() if word else at)
        spans.append(Span(at, end, text[at:end], title))
    parts, at = list[str]([_left(low, "before")]), low
    for span in sorted(spans):
        if at <= span.start <= high or span.start < low < span.end:
            parts += [visible(text[at : span.start]), el("mark", visible(span.shown), title=clean(span.title))]
            at = span.end
    rest = len(text) - max(at, high)
    return html(*parts, visible(text[at:high]), _left(rest, "more"))


def differences(text: str, other: str) -> tuple[Html, Html]:
    """The beginnings of two texts, with the words marked that the other has not (difflib)."""
    one, two = (WORDS.findall(visible(_shown(t))) for t in (text, other))
    steps = SequenceMatcher(None, one, two, autojunk=False).get_opcodes()
    return (
        html(*(_words(one[a:b], kind) for kind, a, b, _, _ in steps), _left(len(text) - SHOWN, "more")),
        html(*(_words(two[a:b], kind) for kind, _, _, a, b in steps), _left(len(other) - SHOWN, "more")),
    )


def _words(words: Sequence[str], kind: str) -> str:
    text = "".join(words)
    return el("mark", text) if text and kind != "equal" else text


def _shown(text: str) -> str:
    beginning = text[: SHOWN + MARGIN]
    return redacted(beginning, _private(beginning))[:SHOWN]


def _window(text: str, at: int) -> tuple[int, int]:
    if len(text) <= SHOWN:
        return 0, len(text)
    low = max(0, min(at - BEFORE, len(text) - SHOWN))
    return low, low + SHOWN


def _private(text: str) -> list[Found]:
    return without_overlaps([*find_secrets(text), *find_personal(text)])


def _left(n: int, where: str) -> Html:
    return el("span", f" … {n:,} characters {where} … ", class_="left") if n > 0 else Html()
