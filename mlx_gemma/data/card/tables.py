"""The tables of a dataset card as Markdown, in which no value of the data can break a line or a column."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_gemma.data.card.facts import Facts
from mlx_gemma.errors import DataError

SHOWN, WIDE = 20, 80  # values of a table, characters of a value
# The hub's names of common licences; it refuses a card with a name that it does not know.
HUB_LICENCES = re.compile(
    r"apache-2\.0|mit|isc|bsd-[23]-clause|cc0-1\.0|cc-by-[23]\.0|cc-by(-nc)?(-sa|-nd)?-4\.0|cc-by-sa-3\.0|[al]?gpl-3\.0"
    r"|gpl-2\.0|lgpl-2\.1|mpl-2\.0|epl-2\.0|odc-by|odbl|pddl|openrail|unlicense|wtfpl|zlib|gemma|unknown"
)


def rows(facts: Mapping[str, Facts]) -> str:
    """Rows by split, and lengths in tokens where they were counted."""
    counted = any(f.tokens for f in facts.values())
    head = ["split", "rows", "unreadable"] + (["tokens", "supervised", "median", "95 %", "longest"] if counted else [])
    lines = []
    for name, f in facts.items():
        total = sum(length * n for length, n in f.tokens.items())
        tokens = [total, f.supervised, f.percentile(0.5), f.percentile(0.95), max(f.tokens, default=0)]
        lines.append([name, *(f"{n:,}" for n in (f.rows, f.bad, *(tokens if counted else [])))])
    return _markdown(head, lines)


def table(head: str, values: Sequence[tuple[str, int]]) -> str:
    """Values and their rows, the most frequent first."""
    rest = values[SHOWN:]
    lines = [[_cell(value), f"{n:,}"] for value, n in values[:SHOWN]]
    if rest:
        lines.append([f"{len(rest):,} others", f"{sum(n for _, n in rest):,}"])
    return _markdown([head, "rows"], lines)


def licences(found: Mapping[str, int], missing: int, given: str | None) -> str:
    """What the rows say, and plainly what they do not say."""
    parts = [table("licence", sorted(found.items(), key=lambda item: (-item[1], item[0])))] if found else []
    if missing and given:
        parts.append(f"{missing:,} rows name none; whoever wrote this card said that theirs is {_cell(given)}.")
    elif missing:
        parts.append(f"**No licence: {missing:,} rows name none.** Nobody may be assumed to allow their use.")
    return "\n\n".join(parts)


def audit(file: Path) -> str:
    """What an audit.json says: rows by check, and what was done about them.

    Raises:
        DataError: it is none.
    """
    try:
        report = json.loads(file.read_text(encoding="utf8"))
        checks = [[_cell(str(c["check"])), f"{int(c['rows']):,}", _cell(str(c["action"]))] for c in report["checks"]]
        counts = [int(report[key]) for key in ("read", "kept", "rejected")]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError("not an audit.json", where=file, fix="give the file that mlx-gemma audit wrote") from e
    head = "{:,} rows read, {:,} kept, {:,} rejected, as `mlx-gemma audit` found.".format(*counts)
    return f"{head}\n\n{_markdown(['check', 'rows', 'action'], checks)}"


def hub_licence(found: Iterable[str]) -> dict[str, Any]:
    """The card's licence keys; one that the hub has no name for is `other`, with its own name beside it."""
    names = list(dict.fromkeys(found))
    ids = list(dict.fromkeys(n.lower() if HUB_LICENCES.fullmatch(n.lower()) else "other" for n in names))
    others = [n for n in names if not HUB_LICENCES.fullmatch(n.lower())]
    if not ids:
        return {}
    return {"license": ids[0] if len(ids) == 1 else ids} | ({"license_name": others[0]} if others else {})


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def _cell(text: str) -> str:
    """A value for a table's cell or a sentence: one line, no column marks, no HTML, not too long."""
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    text = text if len(text) <= WIDE else f"{text[:WIDE]}…"
    for mark, shown in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "'")):
        text = text.replace(mark, shown)
    return text
