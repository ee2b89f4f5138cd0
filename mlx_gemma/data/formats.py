"""Rows of any instruction data set, read into one form: `Row(messages, where, extra)`.

Read are JSON Lines, JSON and Parquet, in four shapes, told apart by their keys, row by row:

    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}
    {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
    {"prompt": ..., "completion": ...}
    {"instruction": ..., "input": ..., "output": ...}                    # `input` may be missing or empty

What else a turn has (`tool_calls`, `reasoning`) no template is given: it is kept in `extra["turn_fields"]`, by the
turn's number, and reported by the form check.

`read_rows` stops at the first bad row with a DataError; `scan_rows` hands bad rows out as `BadRow` and goes on.
sources.py finds the files, locally or on the hub; records.py decodes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_gemma.data.records import Bad, read_records, text_of
from mlx_gemma.data.sources import data_files
from mlx_gemma.errors import DataError

Messages = list[dict[str, str]]

ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
SHAREGPT_ROLES = ROLES | {"human": "user", "gpt": "assistant"}
TURN_FIELDS = "turn_fields"
# What other data sets call them. Told and not read: which of several answers is meant, only the user knows.
OTHER_NAMES = {
    "prompt": ("question", "query", "problem", "input"),
    "completion": ("response", "answer", "solution", "output", "chosen"),
    "instruction": ("input", "question", "query"),
    "output": ("response", "answer", "completion"),
}
SHAPES = "messages, conversations, prompt + completion, or instruction + output"


@dataclass(frozen=True)
class Row:
    """One conversation: an optional system turn, then user and assistant in turn, the assistant last.

    `where` is `file:line` (Parquet: `file:row N`, from 1); `extra` holds the row's other keys as they were; `shape` is
    the one it was read from, by its first key.
    """

    messages: Messages
    where: str
    extra: dict[str, Any] = field(default_factory=dict)
    shape: str = field(default="messages", compare=False)

    @property
    def prompt(self) -> str:
        """All turns before the last, joined by newlines."""
        return "\n".join(m["content"] for m in self.messages[:-1])

    @property
    def answer(self) -> str:
        """The last assistant turn."""
        return self.messages[-1]["content"]

    def as_json(self) -> dict[str, Any]:
        return {"messages": self.messages, **self.extra}


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be trained on: where it is, what is wrong, what to do."""

    where: str
    what: str
    fix: str

    def error(self) -> DataError:
        return DataError(self.what, where=self.where, fix=self.fix)


def read_rows(path: str | Path, split: str = "train") -> Iterator[Row]:
    """The rows of a file, a folder's `split`, or `hf://owner/name[@revision][/file]`; JSON Lines are streamed.

    Raises:
        DataError: at the first bad row, with file and line; or at once where there is nothing to read.
    """
    for row in scan_rows(path, split):
        if isinstance(row, BadRow):
            raise row.error()
        yield row


def scan_rows(path: str | Path, split: str = "train") -> Iterator[Row | BadRow]:
    """Like `read_rows`, but bad rows are handed out and the reading goes on: for the audit.

    A file that cannot be read, or holds no rows, is one bad row, whose `where` is the file; of the only file, or of all
    of them, it is an error.

    Raises:
        DataError: no such file, an unknown kind of file, or no rows at all.
    """
    found, held = False, list[BadRow]()
    for file, shown in data_files(path, split):
        for place, record in read_records(file):
            row = row_of(record, f"{shown}:{place}" if place else shown)
            if not found and not place and isinstance(row, BadRow):
                held.append(row)
                continue
            if not found:
                found = True
                yield from held
            yield row
    if not found:
        raise held[0].error()


def row_of(record: Any, where: str) -> Row | BadRow:
    """What a record of `read_records` is."""
    try:
        if isinstance(record, Bad):
            raise record
        shape, messages, used, fields = _messages(record)
        _check_order(messages)
    except Bad as e:
        return BadRow(where, e.what, e.fix)
    extra = {k: v for k, v in record.items() if k not in used}
    return Row(messages, where, extra | ({TURN_FIELDS: fields} if fields else {}), shape)


# Records -> messages, and the keys that were used for them.


Parts = tuple[str, Messages, set[str], dict[str, Any]]
"""The record's shape, its messages, the keys they were made of, and what else its turns hold."""


def _messages(record: Any) -> Parts:
    if not isinstance(record, dict):
        kind = "array" if isinstance(record, list) else type(record).__name__
        raise Bad(f"a row must be a JSON object, not {kind}", "write one object a line")
    keys = record.keys()
    if "messages" in keys:
        return _talk(record, "messages", "role", "content", ROLES)
    if "conversations" in keys:
        return _talk(record, "conversations", "from", "value", SHAREGPT_ROLES)
    if {"prompt", "completion"} <= keys:
        said = [_said("user", record, "prompt"), _said("assistant", record, "completion")]
        return "prompt", said, {"prompt", "completion"}, {}
    if {"instruction", "output"} <= keys:
        question = _said("user", record, "instruction")
        if record.get("input") not in (None, ""):
            question["content"] += "\n\n" + _said("user", record, "input")["content"]
        said = [question, _said("assistant", record, "output")]
        return "instruction", said, {"instruction", "input", "output"}, {}
    for one, other in (("prompt", "completion"), ("instruction", "output")):
        if (one in keys) != (other in keys):
            have, lack = (one, other) if one in keys else (other, one)
            raise Bad(f"has {have!r} but no {lack!r}", _renaming(keys, lack) or f"add {lack!r}")
    found = ", ".join(sorted(repr(k[:40]) for k in keys)[:5]) or "none"  # repr: for the terminal's sake
    raise Bad(f"no known shape (keys: {found})", _renaming(keys, "prompt", "completion") or f"give {SHAPES}")


def _renaming(keys: Collection[str], *wanted: str) -> str | None:
    """Which of a row's keys are probably meant; None where one is not there."""
    meant = [(next((k for k in OTHER_NAMES[name] if k in keys), None), name) for name in wanted]
    return None if (None in dict(meant)) else " and ".join(f"rename {key!r} to {name!r}" for key, name in meant)


def _talk(record: dict[str, Any], key: str, role_key: str, text_key: str, roles: dict[str, str]) -> Parts:
    turns = record[key]
    if not isinstance(turns, list) or not turns:
        raise Bad(f"{key!r} must be a non-empty list of turns", "give at least one user and one assistant turn")
    messages, fields = Messages(), dict[str, Any]()
    for number, turn in enumerate(turns, 1):
        messages.append(_turn(turn, number, role_key, text_key, roles))
        if len(turn) > 2:
            others = {k: v for k, v in turn.items() if k not in (role_key, text_key) and says_something(v)}
            fields |= {str(number): others} if others else {}
    return key, messages, {key}, fields


def says_something(value: Any) -> bool:
    """Whether a value is other than null, "", and collections of nothing else; 0 and false say something."""
    if isinstance(value, dict):
        return any(map(says_something, value.values()))
    return value is not None and value != "" and value != []


def _turn(turn: Any, number: int, role_key: str, text_key: str, roles: dict[str, str]) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise Bad(f"turn {number} must be an object, not {type(turn).__name__}", f"give {role_key!r} and {text_key!r}")
    for key in (role_key, text_key):
        if key not in turn:
            raise Bad(f"turn {number} has no {key!r}", f"give {role_key!r} and {text_key!r} in every turn")
    role = turn[role_key]
    if not isinstance(role, str) or role not in roles:
        raise Bad(f"turn {number} has the unknown role {str(role)[:40]!r}", f"known are {', '.join(roles)}")
    return _said(roles[role], turn, text_key, f"turn {number}: ")


def _said(role: str, record: dict[str, Any], key: str, place: str = "") -> dict[str, str]:
    return {"role": role, "content": text_of(record, key, place)}


def _check_order(messages: Messages) -> None:
    roles = [m["role"] for m in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    for i, role in enumerate(turns):
        want = "assistant" if i % 2 else "user"
        if role != want:
            raise Bad(
                f"turn {i + 1 + len(roles) - len(turns)} is {role}, where {want} must be",
                "after an optional system turn, user and assistant alternate",
            )
    if not turns or turns[-1] != "assistant":
        raise Bad("the last turn is not the assistant's", "there is nothing to learn without an answer: add one")
