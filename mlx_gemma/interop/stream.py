"""A checkpoint's tensors, the adapter merged into them, a few rows at a time: no export holds more than one matrix.

A piece that is neither merged nor cast is copied byte for byte, whatever its dtype.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.checkpoint import WEIGHTS, Checkpoint
from mlx_gemma.gemma4.headers import Tensor, tensors
from mlx_gemma.interop.merge import BLOCK, Adapter, Arrays, fits, merge, place_of

FLOATS = {"F32": (np.uint32, mx.float32), "F16": (np.uint16, mx.float16), "BF16": (np.uint16, mx.bfloat16)}


@dataclass(frozen=True)
class Entry:
    """A tensor of a safetensors file that is to be written; `size` in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Group:
    """Tensors that are made in one pass: each part holds the next bytes of every one."""

    entries: tuple[Entry, ...]
    parts: Callable[[], Iterator[tuple[bytes, ...]]]


@dataclass
class Piece:
    """One tensor of the exported model. `change` is |merged - W| / |W|, once a merged piece has been read."""

    name: str  # in the source
    file: Path
    tensor: Tensor
    arrays: Arrays | None
    scale: float
    change: float | None = field(default=None, init=False)

    def blocks(self) -> Iterator[mx.array]:
        """The tensor in float32, in runs of whole rows of at most `BLOCK` numbers or one row; merged, in one."""
        storage, dtype = FLOATS[self.tensor.dtype]
        shape = self.tensor.shape or (1,)
        width = math.prod(shape[1:])
        rows = shape[0] if self.arrays else max(1, BLOCK // max(1, width))
        item = np.dtype(storage).itemsize
        with self.file.open("rb") as stream:
            stream.seek(self.tensor.start)
            for first in range(0, shape[0], rows):
                count = min(rows, shape[0] - first)
                raw = np.frombuffer(stream.read(count * width * item), storage)
                with mx.stream(mx.cpu):
                    block = mx.array(raw).view(dtype).reshape(count, *shape[1:]).astype(mx.float32)
                if self.arrays:
                    block, self.change = merge(block, self.arrays, self.scale)
                yield block

    def data(self, dtype: str) -> Iterator[bytes]:
        """The tensor's bytes in a safetensors dtype; as they are where nothing changes."""
        if self.arrays is None and dtype == self.tensor.dtype:
            with self.file.open("rb") as stream:
                stream.seek(self.tensor.start)
                left = self.tensor.size
                while left:
                    part = stream.read(min(left, 4 * BLOCK))
                    left -= len(part)
                    yield part
            return
        storage, target = FLOATS[dtype]
        for block in self.blocks():
            with mx.stream(mx.cpu):
                bits = block.astype(target).view(mx.uint32 if storage is np.uint32 else mx.uint16)
            yield np.asarray(bits).tobytes()

    def stored(self, name: str, dtype: str) -> Group:
        """To be written under a name, in a dtype."""
        size = self.tensor.size
        if dtype != self.tensor.dtype:
            size = math.prod(self.tensor.shape) * np.dtype(FLOATS[dtype][0]).itemsize
        return Group((Entry(name, dtype, self.tensor.shape, size),), lambda: ((part,) for part in self.data(dtype)))


def weight_files(source: Checkpoint) -> list[Path]:
    return sorted(source.folder.glob(WEIGHTS))


def pieces(file: Path, adapter: Adapter | None) -> list[Piece]:
    """Every tensor of a safetensors file, in the file's order.

    Raises:
        ModelError: an adapted tensor is not of the adapter's shape.
    """
    found = []
    for name, tensor in sorted(tensors(file).items(), key=lambda item: item[1].start):
        arrays = adapter.arrays.get(place_of(name) or "") if adapter else None
        if arrays is not None and not fits(tensor.shape, arrays):
            held = ", ".join(f"{leaf} {list(arrays[leaf].shape)}" for leaf in sorted(arrays))
            what = f"{name} is {list(tensor.shape)}, the adapter has {held}"
            raise ModelError(what, where=file, fix="export onto the checkpoint that the adapter was trained on")
        found.append(Piece(name, file, tensor, arrays, adapter.scale if adapter else 1.0))
    return found


def write_safetensors(file: Path, groups: Sequence[Group], metadata: dict[str, str] | None = None) -> None:
    """Write tensors in the order given, as safetensors' own library lays them out.

    Raises:
        OSError: the disk is full or read-only; the file is then incomplete.
    """
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for entry in (e for group in groups for e in group.entries):
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [at, at + entry.size],
        }
        at += entry.size
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    with file.open("wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        first = stream.tell()
        for group in groups:
            places = list(accumulate((e.size for e in group.entries), initial=first))
            first = places.pop()
            for parts in group.parts():
                for i, part in enumerate(parts):
                    stream.seek(places[i])
                    stream.write(part)
                    places[i] += len(part)
        stream.flush()
        os.fsync(stream.fileno())
