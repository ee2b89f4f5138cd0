"""Text of a data set made safe to show: no character of it moves a cursor, rings a bell or reverses a line."""

from __future__ import annotations

import re

# C0 and C1 controls but tab and newline, what is zero columns wide or turns the direction, half a surrogate pair, what
# is no character.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with every control or invisible character as its escape (`\\x1b`, `\\u202e`); tabs and newlines stay."""
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: object, limit: int = 200) -> str:
    """The beginning of a text, as one visible line: for messages."""
    line = " ".join(visible(str(text)[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
