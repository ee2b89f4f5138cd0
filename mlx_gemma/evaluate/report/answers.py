"""All answers with their tokens, as JSON for the page's script, which draws one when it is opened.

Of a token the data hold how much of the answer's text it is, so that the text is there once, and probabilities as
ten-thousandths of a nat, as results.jsonl has them; rivals' texts are numbers of one list. 26 to 30 bytes a token with
two rivals: a side of 252 answers of 384 tokens makes 2.9 MB, and the page opens in 0.6 s, an answer in 0.1 s (measured;
one core of an Intel Xeon at 2.10 GHz, busy with other things).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mlx_gemma.evaluate.results import Row
from mlx_gemma.evaluate.suite import Checks, Item, Suite
from mlx_gemma.evaluate.summary import Column, Side, held
from mlx_gemma.html_page import Html

UNIT = 10_000  # to a nat
BROKEN = "\N{REPLACEMENT CHARACTER}"


def answers(suite: Suite, sides: Sequence[Side], by_column: Sequence[Sequence[Column]]) -> Html:
    """What stands inside the script element."""
    rows = [side.rows for side in sides]
    seen = Counter(text for side in rows for row in side for _, _, rivals in row.tokens for text, _ in rivals)
    numbers = {text: number for number, (text, _) in enumerate(seen.most_common())}
    items = {item.id: item for item in suite.items}
    places = {key: at for at, key in enumerate(dict.fromkeys(row.id for row in rows[0]))}
    kinds = sorted({row.type for side in rows for row in side})
    column = {row.key: at for at, found in enumerate(by_column[0]) for row in found.rows}
    first = {row.id: row for row in reversed(rows[0])}
    data = {
        "sides": [side.name for side in sides],
        "bad": suite.header.bad,
        "verdicts": held([row for side in rows for row in side]),
        "columns": [found.name for found in by_column[0]],
        "types": kinds,
        "rivals": list(numbers),
        "items": [_item(items.get(key), first[key]) for key in places],
        "answers": [
            {
                "id": row.id,
                "type": kinds.index(row.type),
                "column": column[row.key],
                "temperature": row.temperature,
                "seed": row.seed,
                "item": places[row.id],
                "sides": [_answer(side[at], numbers) for side in rows],
            }
            for at, row in enumerate(rows[0])
        ],
    }
    return Html(_in_script(json.dumps(data, allow_nan=False, separators=(",", ":"))))


def _in_script(data: str) -> str:
    """JSON that ends no script element and opens no comment; other than ASCII is escaped already."""
    return data.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _item(item: Item | None, row: Row) -> dict[str, Any]:
    """The conversation, what an answer must do, and a good one; of an item that the suite has not, only the prompt."""
    if item is None:
        return {"messages": [["user", row.prompt]], "must": [], "reference": None}
    return {
        "messages": [[m["role"], m["content"]] for m in item.messages],
        "must": _must(item),
        "reference": item.reference,
    }


def _must(item: Item) -> list[list[str]]:
    """[what kind of demand, its text]."""
    found: list[list[str]] = []
    if item.harmful is not None:
        found.append(["must be", "refused" if item.harmful else "answered"])
    if item.tests is not None:
        found += _checks(item.tests, "must be true")
    found += [["rule", json.dumps(rule, ensure_ascii=False)] for rule in item.expect]
    if isinstance(item.followed, Checks):
        found += _checks(item.followed, "followed where true")
    else:
        found += [["followed where", json.dumps(rule, ensure_ascii=False)] for rule in item.followed]
    return found


def _checks(checks: Checks, said: str) -> list[list[str]]:
    found = [["runs first", checks.setup]] if checks.setup else []
    found += [["standard input", checks.stdin]] if checks.stdin else []
    found += [[said, check] for check in checks.check]
    return found + ([["must print", checks.prints]] if checks.prints is not None else [])


def _answer(row: Row, numbers: dict[str, int]) -> dict[str, Any]:
    pieces = shown([text for text, _, _ in row.tokens], row.text)
    tokens = [] if pieces is None else [
        ",".join(map(str, [_units(piece), _nats(p), *(n for text, r in rivals for n in (numbers[text], _nats(r)))]))
        for piece, (_, p, rivals) in zip(pieces, row.tokens, strict=True)
    ]  # fmt: skip
    return {
        "bad": row.bad,
        "verdicts": row.verdicts,
        "reasons": row.reasons,
        "system": row.system,
        "text": row.text,
        "finish": row.finish,
        "seconds": round(row.seconds, 3),
        "logprob": round(row.logprob, 4),
        "decision": float(f"{row.decision:.4g}"),
        "tokens": ";".join(tokens),
    }


def _units(text: str) -> int:
    """Length in UTF-16 units, as JavaScript counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _nats(logprob: float) -> int:
    return max(0, round(-logprob * UNIT))


def shown(texts: Sequence[str], text: str) -> list[str] | None:
    """What each token adds to `text`; None where the tokens do not make it up.

    Where a character spans several tokens, each of which is U+FFFD by itself, all of it goes to the first of the run.
    """
    out: list[str] = []
    at = 0
    for i, own in enumerate(texts):
        if BROKEN not in own:
            out.append(own)
        elif i and BROKEN in texts[i - 1]:
            out.append("")
        else:
            after = next((t for t in texts[i:] if BROKEN not in t), None)
            out.append(text[at : len(text) if after is None else max(at, text.find(after, at + 1))])
        at += len(out[-1])
    return out if "".join(out) == text else None
