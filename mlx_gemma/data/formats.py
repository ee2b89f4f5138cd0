"""Rows of any instruction data set, read into one form: `Row(messages, where, extra)`.

Read are JSON Lines and Parquet, in four shapes, told apart by their keys, row by row:

    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}
    {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
    {"prompt": ..., "completion": ...}
    {"instruction": ..., "input": ..., "output": ...}                    # `input` may be missing or empty

`read_rows` stops at the first bad row with a DataError; `scan_rows` hands bad rows out as `BadRow` and goes on.
sources.py finds the files, locally or on the hub; records.py decodes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_gemma.data.records import Bad, read_records, text_of
from mlx_gemma.data.sources import data_files
from mlx_gemma.errors import DataError

Messages = list[dict[str, str]]

ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
SHAREGPT_ROLES = ROLES | {"human": "user", "gpt": "assistant"}
SHAPES = "messages, conversations, prompt + completion, or instruction + output"


@dataclass(frozen=True)
class Row:
    """One conversation: an optional system turn, then user and assistant in turn, the assistant last.

    `where` is `file:line` (Parquet: `file:row N`, from 1); `extra` holds the row's other keys as they were.
    """

    messages: Messages
    where: str
    extra: dict[str, Any] = field(default_factory=dict)

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

    Raises:
        DataError: no such file, an unknown kind of file, a Parquet file that cannot be opened, no rows at all.
    """
    for file, shown in data_files(path, split):
        found = False
        try:
            for place, record in read_records(file):
                found = True
                yield _row(record, f"{shown}:{place}")
        except OSError as e:
            raise DataError(f"cannot be read: {e.strerror or e}", where=shown) from e
        if not found:
            raise DataError("holds no rows", where=shown, fix="point at a file with at least one row")


def _row(record: Any, where: str) -> Row | BadRow:
    try:
        if isinstance(record, Bad):
            raise record
        messages, used = _messages(record)
        _check_order(messages)
    except Bad as e:
        return BadRow(where, e.what, e.fix)
    return Row(messages, where, {k: v for k, v in record.items() if k not in used})


# Records -> messages, and the keys that were used for them.


def _messages(record: Any) -> tuple[Messages, set[str]]:
    if not isinstance(record, dict):
        kind = "array" if isinstance(record, list) else type(record).__name__
        raise Bad(f"a row must be a JSON object, not {kind}", "write one object a line")
    keys = record.keys()
    if "messages" in keys:
        return [_turn(t, i, "role", "content", ROLES) for i, t in _turns(record, "messages")], {"messages"}
    if "conversations" in keys:
        turns = _turns(record, "conversations")
        return [_turn(t, i, "from", "value", SHAREGPT_ROLES) for i, t in turns], {"conversations"}
    if {"prompt", "completion"} <= keys:
        return [_said("user", record, "prompt"), _said("assistant", record, "completion")], {"prompt", "completion"}
    if {"instruction", "output"} <= keys:
        question = _said("user", record, "instruction")
        if record.get("input") not in (None, ""):
            question["content"] += "\n\n" + _said("user", record, "input")["content"]
        return [question, _said("assistant", record, "output")], {"instruction", "input", "output"}
    for one, other in (("prompt", "completion"), ("instruction", "output")):
        if (one in keys) != (other in keys):
            have, lack = (one, other) if one in keys else (other, one)
            raise Bad(f"has {have!r} but no {lack!r}", f"add {lack!r}")
    found = ", ".join(sorted(map(repr, keys))[:5]) or "none"  # repr: a key may hold what no terminal should see
    raise Bad(f"no known shape (keys: {found})", f"give {SHAPES}")


def _turns(record: dict[str, Any], key: str) -> Iterator[tuple[int, Any]]:
    if not isinstance(record[key], list) or not record[key]:
        raise Bad(f"{key!r} must be a non-empty list of turns", "give at least one user and one assistant turn")
    return enumerate(record[key], 1)


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
