"""A clean set made as it would come from the wild: Python 2, duplicates, damage and leaks, every fault labelled.

Labels are made here, from how a row was made, and never from what a filter says of it:

    python2           the family's Python 2 program; `how` it fails in Python 3: `syntax`, or `error` when it is run
    python2_value     the same, where Python 3 runs it and only the values differ: no reading of the source can be sure
    broken            a bracket, colon or indent taken away, so that the code no longer compiles
    truncated         cut inside the code, with or without the closing fence
    exact_duplicate   another row again, at most with more white space
    near_duplicate    another row with a slip in the prompt, or a comment or blank line in the code
    leaked            a prompt of the eval suite with its answer, one in three with a slip in the prompt
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from mlx_gemma.data.build.families import run_checks
from mlx_gemma.data.build.samples import Sample, fenced
from mlx_gemma.data.solutions import CheckFailed
from mlx_gemma.errors import DataError

OF = 5000  # train rows with so many faults, and others in proportion:
PYTHON2, BROKEN, TRUNCATED = 480, 120, 120  # in place of train rows
EXACT, NEAR = 420, 500  # besides them
COMMENTS = ("# the result", "# see the docs", "# main part", "# TODO: test this", "# helper")

Record = dict[str, Any]
Label = dict[str, Any]


def add_faults(
    train: Sequence[Sample],
    leaks: Sequence[tuple[Record, str]],
    rng: random.Random,
    others: Sequence[tuple[Record, Label]] = (),
) -> tuple[list[Record], list[Label]]:
    """Rows in shuffled order, and the labels of the faulty ones: {"row": line from 1, "label", "how"?, "of"?}.

    Args:
        leaks: (eval item, its fenced answer).
        others: rows that go in as they are, with their labels.
    """
    wanted = (PYTHON2, BROKEN, TRUNCATED, EXACT, NEAR)
    python2, broken, truncated, exact, near = (round(n * len(train) / OF) for n in wanted)
    order = rng.sample(range(len(train)), len(train))
    rows: list[tuple[Record, Label | None]] = [(s.record(), None) for s in train]

    translated = [i for i in order if train[i].task.python2 is not None][:python2]
    for i in translated:
        rows[i] = _python2(train[i])
    rest = [i for i in order if i not in set(translated)]
    for i in rest[:broken]:
        rows[i] = _broken(train[i], rng)
    for i in rest[broken : broken + truncated]:
        rows[i] = _truncated(train[i], rng)
    rest = rest[broken + truncated :]
    copies = [(_exact_copy, "exact_duplicate", i) for i in rest[:exact]]
    copies += [(_near_copy, "near_duplicate", i) for i in rest[exact : exact + near]]
    for copy, name, i in copies:
        record, how = copy(train[i].record(), rng)
        rows.append((record, {"label": name, "how": how, "of": i}))
    for n, (item, answer) in enumerate(leaks):
        prompt = slip(item["prompt"], rng) if n % 3 == 2 else item["prompt"]
        record = train[0].record(answer) | {k: item[k] for k in ("family", "topic", "tests")}
        record["messages"][0]["content"] = prompt
        rows.append((record, {"label": "leaked", "how": "slip" if n % 3 == 2 else "verbatim", "of": item["id"]}))
    rows += others

    shuffled = rng.sample(range(len(rows)), len(rows))
    line = {i: n for n, i in enumerate(shuffled, 1)}
    labels = []
    for i in shuffled:
        if (label := rows[i][1]) is not None:
            at = {"of": line[label["of"]]} if isinstance(label.get("of"), int) else {}
            labels.append({"row": line[i], **label, **at})
    return [rows[i][0] for i in shuffled], labels


def _code(record: Record) -> str:
    text: str = record["messages"][1]["content"]
    return text.removeprefix("```python\n").removesuffix("\n```")


def _answer(record: Record, content: str) -> Record:
    record["messages"][1]["content"] = content
    return record


def _python2(sample: Sample) -> tuple[Record, Label]:
    source = sample.task.python2 or ""
    how = _failure(source, sample)
    label = {"label": "python2_value"} if how == "value" else {"label": "python2", "how": how}
    return sample.record(fenced(source)), label


def _failure(source: str, sample: Sample) -> str:
    """How a Python 2 program fails in Python 3: `syntax`, `error` (when run), or `value` (a check is not true)."""
    if not _compiles(source):
        return "syntax"
    try:
        run_checks(source, sample.task)
    except CheckFailed as e:
        return "value" if str(e).startswith(("not true", "printed")) else "error"
    raise DataError("the Python 2 program passes in Python 3", where=sample.task.family, fix="take `python2` out")


def _broken(sample: Sample, rng: random.Random) -> tuple[Record, Label]:
    record = sample.record()
    ways = {"bracket": r"[()\[\]{}]", "colon": r":$", "indent": r"^ {4}(?=\S)"}
    how = rng.choice(list(ways))
    code = _code(record)
    places = [
        m for m in re.finditer(ways[how], code, re.MULTILINE) if not _compiles(code[: m.start()] + code[m.end() :])
    ]
    if not places:
        return _broken(sample, rng)
    place = rng.choice(places)
    return _answer(record, fenced(code[: place.start()] + code[place.end() :])), {
        "label": "broken",
        "how": how,
    }


def _truncated(sample: Sample, rng: random.Random) -> tuple[Record, Label]:
    record = sample.record()
    code = _code(record)
    cut = code[: rng.randrange(len(code) // 4, len(code) - 1)].rstrip()
    if rng.random() < 0.3 and not _compiles(cut):
        return _answer(record, fenced(cut)), {"label": "truncated", "how": "closed fence"}
    return _answer(record, f"```python\n{cut}"), {"label": "truncated", "how": "open fence"}


def _compiles(source: str) -> bool:
    try:
        compile(source, "<fault>", "exec")
    except SyntaxError:
        return False
    return True


def _exact_copy(record: Record, rng: random.Random) -> tuple[Record, str]:
    how = rng.choice(("verbatim", "white space"))
    if how == "white space":
        record["messages"][0]["content"] = rng.choice((" {}", "{}\n", "{}  ")).format(record["messages"][0]["content"])
        record["messages"][1]["content"] += rng.choice(("\n", "\n\n", " "))
    return record, how


def _near_copy(record: Record, rng: random.Random) -> tuple[Record, str]:
    ways: dict[str, Callable[[str, random.Random], str]] = {"slip": slip, "style": _style}
    how = rng.choice([*ways, "comment", "blank line"])
    prompt, code = record["messages"][0]["content"], _code(record)
    if how in ways:
        record["messages"][0]["content"] = ways[how](prompt, rng)
        return record, how
    lines = code.split("\n")
    at = rng.randrange(1, len(lines)) if len(lines) > 1 else 0
    indent = " " * (len(lines[at]) - len(lines[at].lstrip()))
    lines.insert(at, "" if how == "blank line" else indent + rng.choice(COMMENTS))
    record["messages"][0]["content"] = _style(prompt, rng)  # a blank line alone would leave an exact duplicate
    return _answer(record, fenced("\n".join(lines))), how


def slip(prompt: str, rng: random.Random) -> str:
    """The prompt with a slip of the finger in one longer word: two letters swapped, one left out or doubled."""
    words = list(re.finditer(r"(?<![\w(])[A-Za-z]{5,}(?![\w(])", prompt))
    if not words:
        return _style(prompt, rng)
    word = rng.choice(words)
    text, at = word.group(), rng.randrange(1, len(word.group()) - 2)
    swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    changed = rng.choice((swapped, text[:at] + text[at + 1 :], text[:at] + text[at] + text[at:]))
    if changed == text:
        return slip(prompt, rng)
    return prompt[: word.start()] + changed + prompt[word.end() :]


def _style(prompt: str, rng: random.Random) -> str:
    """The prompt in another case, or with other punctuation at its end or after its first word."""
    end = prompt.rstrip(".!?")
    first, _, rest = prompt.partition(" ")
    other_case = (prompt[:1].lower() if prompt[:1].isupper() else prompt[:1].upper()) + prompt[1:]
    options = [end + "!", end + "...", other_case, f"{first}, {rest}"] + ([end] if end != prompt else [])
    return rng.choice([o for o in options if o != prompt])
