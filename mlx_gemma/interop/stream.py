"""A checkpoint's tensors, the adapter merged into them, a few rows at a time: no export holds more than one matrix.

A piece that is neither merged nor cast is copied byte for byte, whatever its dtype.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.checkpoint import WEIGHTS, Checkpoint
from mlx_gemma.gemma4.headers import Tensor, tensors
from mlx_gemma.interop.merge import Adapter, Arrays, fits, merge, place_of

FLOATS = {"F32": (np.uint32, mx.float32), "F16": (np.uint16, mx.float16), "BF16": (np.uint16, mx.bfloat16)}
BLOCK = 16 * 2**20  # numbers at a time


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


def write_safetensors(
    file: Path, chosen: Sequence[tuple[str, str, Piece]], metadata: dict[str, str] | None = None
) -> None:
    """Write pieces under (name, dtype), in the order given, as safetensors' own library lays them out.

    Raises:
        OSError: the disk is full or read-only; the file is then incomplete.
    """
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, dtype, piece in chosen:
        size = piece.tensor.size
        if dtype != piece.tensor.dtype:
            size = math.prod(piece.tensor.shape) * np.dtype(FLOATS[dtype][0]).itemsize
        header[name] = {"dtype": dtype, "shape": list(piece.tensor.shape), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    with file.open("wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for _, dtype, piece in chosen:
            for part in piece.data(dtype):
                stream.write(part)
        stream.flush()
        os.fsync(stream.fileno())
