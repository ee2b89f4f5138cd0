"""One JSON text decoded, strictly: keys once, no NaN, no deep nesting. What is refused is a `Bad`."""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_LINE = 16 * 2**20  # bytes; a longer line is no instruction row, and must not fill the memory
MAX_DEPTH = 64  # brackets within brackets; what is deeper would break whoever walks the row later
TOO_LONG = f"longer than {MAX_LINE >> 20} MiB"
BOM = b"\xef\xbb\xbf"


class Bad(ValueError):
    """Why a row cannot be used, and what to do about it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def decoded(text: str) -> Any:
    """The value of a whole JSON text.

    Raises:
        ValueError, RecursionError: it is none; `bad` says it in words.
    """
    return flat(DECODER.decode(text), text)


def bad(error: Exception) -> Bad:
    """What an error of decoding means to the user."""
    if isinstance(error, Bad):
        return error
    if isinstance(error, RecursionError):
        return Bad("nested too deeply", "a row is a flat object of a few keys: drop the line")
    fix = "every line must be one JSON object"
    if isinstance(error, json.JSONDecodeError):
        return Bad(f"invalid JSON: {error.msg} at column {error.colno}", fix)
    return Bad(f"invalid JSON: {error}", fix)


def flat(value: Any, text: str) -> Any:
    """The value that was decoded from a text; RecursionError where it is deeper than MAX_DEPTH."""
    level = [value] if text.count("[") + text.count("{") > MAX_DEPTH else []
    for _ in range(MAX_DEPTH):
        inner = [v.values() if isinstance(v, dict) else v for v in level]
        level = [v for values in inner for v in values if isinstance(v, dict | list)]
    if level:
        raise RecursionError
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise Bad(f"key {key[:80]!r} occurs twice", "keep one of the two")
            seen.add(key)
    return record


def _no_constant(name: str) -> NoReturn:
    raise Bad(f"{name} is not JSON", "write null or a number")


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
