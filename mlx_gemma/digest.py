"""Digests: what makes a data set, a base or a recipe the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def digest_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf8")).hexdigest()


def digest_json(value: Any) -> str:
    """Of a value's canonical JSON: keys sorted, no spaces."""
    return digest_text(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str))


def digest_files(paths: Iterable[Path]) -> str:
    """Of the names and contents of files, in the order given; streamed, so any size costs no memory."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
