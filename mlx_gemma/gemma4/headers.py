"""What a safetensors file says it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_gemma.errors import ModelError


@dataclass(frozen=True)
class Tensor:
    """A tensor's entry in a safetensors file; `start` and `size` in bytes, from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def tensors(file: Path) -> dict[str, Tensor]:
    """What a safetensors file says it holds; reads the header only.

    Raises:
        ModelError: it is no safetensors file, or shorter than its header says.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size - 8:
                raise ValueError("the header is cut off")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        found = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            found[name] = Tensor(entry["dtype"], tuple(entry["shape"]), 8 + length + begin, end - begin)
        if max((t.start + t.size for t in found.values()), default=0) != file.stat().st_size:
            raise ValueError("the file does not end where its last tensor does")
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as e:
        raise ModelError(f"no readable safetensors file: {e}", where=file, fix="download the checkpoint again") from e
    return found


def metadata(file: Path) -> dict[str, str] | None:
    """The text that a safetensors file carries beside its tensors, None if it has none; `tensors` checks the file."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return dict(found) if (found := json.loads(stream.read(length)).get("__metadata__")) else None
