"""Under which keys data sets say of a row what it is, where it is from, and on what terms."""

from __future__ import annotations

from typing import Any

KEYS = {  # what is asked for, and the keys that may hold it: the first that does counts
    "tasks": ("task_type", "task", "topic", "category", "type"),
    "families": ("family", "group"),
    "sources": ("source", "source_dataset", "dataset", "origin", "repo"),
    "licences": ("license", "licence"),
}


def value_of(extra: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first of the keys that says something, as text; of a list its first element."""
    for key in keys:
        value = extra.get(key)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str | int) and str(value).strip():
            return str(value).strip()
    return None
