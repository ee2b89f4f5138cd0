"""The GGUF container: what a file says it holds, its tensors one at a time, and a writer that never holds one whole.

Written through gguf's GGUFWriter and dequantised by gguf; but gguf's GGUFReader makes numpy arrays of every token and
merge, 100 s and 1.4 GB at Gemma 4's vocabulary, so the header is read here, in a second.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Type

from mlx_gemma import run
from mlx_gemma.errors import ModelError
from mlx_gemma.interop.merge import BLOCK
from mlx_gemma.interop.stream import FLOATS

ARCHITECTURE = gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GEMMA4]
FORMATS = "BbHhIif?--Qqd"  # struct's, by the number of a metadata value's type
STRING, ARRAY = 8, 9
AGAIN = "export or download it again"


@dataclass(frozen=True)
class Tensor:
    """A tensor's entry; `shape` with rows first, `start` and `size` in bytes from the beginning of the file."""

    type: Type
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class File:
    """A GGUF file's metadata by key and tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    def value(self, key: str) -> Any:
        """Of `gemma4.KEY`.

        Raises:
            ModelError: it has none.
        """
        found = self.metadata.get(f"{ARCHITECTURE}.{key}")
        if found is None:
            raise ModelError(f"no {ARCHITECTURE}.{key} in its metadata", where=self.path, fix=AGAIN)
        return found

    def array(self, name: str, dtype: mx.Dtype) -> mx.array:
        """A tensor in a dtype, dequantised; a block at a time, so at most twice the result in memory.

        Raises:
            ModelError: gguf cannot dequantise its type.
        """
        tensor, blocks = self.tensors[name], []
        rows, width = tensor.shape[0], tensor.size // tensor.shape[0]
        step = max(1, BLOCK * rows // math.prod(tensor.shape))
        with self.path.open("rb") as stream, mx.stream(mx.cpu):
            stream.seek(tensor.start)
            for first in range(0, rows, step):
                count = min(step, rows - first)
                raw = np.frombuffer(stream.read(count * width), np.uint8).reshape(count, width)
                blocks.append(_values(raw, tensor.type, self.path).astype(dtype))
                mx.eval(blocks[-1])
            out = mx.concatenate(blocks).reshape(tensor.shape)
            mx.eval(out)
        return out


def _values(raw: Any, kind: Type, where: Path) -> mx.array:
    """Numbers of rows of bytes [n, bytes]."""
    if kind.name in FLOATS:
        storage, dtype = FLOATS[kind.name]
        return mx.array(raw.view(storage)).view(dtype)
    try:
        return mx.array(gguf.quants.dequantize(raw, kind))
    except NotImplementedError as e:
        fix = "give an F32, F16, BF16 or Q8_0 file of the same model"
        raise ModelError(f"gguf does not dequantise {kind.name}", where=where, fix=fix) from e


def read_file(path: Path) -> File:
    """The header of a GGUF file (little-endian, version 2 or 3).

    Raises:
        ModelError: it is none, is cut off, or is of another architecture than gemma4.

    Cost: 1 s at 262,144 tokens; no tensor is read.
    """
    try:
        with path.open("rb") as stream:
            total = path.stat().st_size
            magic, version, count, keys = struct.unpack("<IIQQ", stream.read(24))
            if magic != gguf.GGUF_MAGIC or version not in (2, 3):
                raise ValueError("no GGUF header of version 2 or 3")
            metadata = {}
            for _ in range(keys):
                key = _string(stream)
                metadata[key] = _value(stream, *_unpack(stream, "I"))
            entries = [_entry(stream) for _ in range(count)]
            alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
            data = -(-stream.tell() // alignment) * alignment
            tensors = {name: Tensor(kind, shape, data + at, size) for name, kind, shape, at, size in entries}
            if max((t.start + t.size for t in tensors.values()), default=0) > total:
                raise ValueError("it ends before its last tensor does")
    except (OSError, ValueError, TypeError, KeyError, struct.error, ArithmeticError, MemoryError) as e:
        raise ModelError(f"no readable GGUF file: {e}", where=path, fix=AGAIN) from e
    if (found := metadata.get("general.architecture")) != ARCHITECTURE:
        raise ModelError(f"a GGUF of architecture {found}", where=path, fix=f"give one of {ARCHITECTURE} (E2B, E4B)")
    return File(path, metadata, tensors)


def _unpack(stream: BinaryIO, form: str) -> tuple[Any, ...]:
    form = "<" + form
    return struct.unpack(form, stream.read(struct.calcsize(form)))


def _string(stream: BinaryIO) -> str:
    raw = stream.read(length := _unpack(stream, "Q")[0])
    if len(raw) < length:
        raise ValueError("it is cut off")
    return raw.decode("utf8")


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(stream)
    if kind != ARRAY:
        return _unpack(stream, FORMATS[kind])[0]
    inner, count = _unpack(stream, "IQ")
    if inner in (STRING, ARRAY):
        return [_value(stream, inner) for _ in range(count)]
    return list(_unpack(stream, f"{count}{FORMATS[inner]}"))


def _entry(stream: BinaryIO) -> tuple[str, Type, tuple[int, ...], int, int]:
    """Name, type, shape, offset in the data and size of the next tensor."""
    name = _string(stream)
    shape = tuple(reversed(_unpack(stream, f"{_unpack(stream, 'I')[0]}Q")))
    number, at = _unpack(stream, "IQ")
    kind = Type(number)
    block, width = gguf.GGML_QUANT_SIZES[kind]
    if not shape or 0 in shape or shape[-1] % block:
        raise ValueError(f"{name} is {list(shape)} of {kind.name}")
    return name, kind, shape, at, math.prod(shape) // block * width


@dataclass(frozen=True)
class Stored:
    """A tensor to be written: `data` yields its bytes, in parts."""

    name: str
    type: Type
    shape: tuple[int, ...]
    data: Callable[[], Iterator[bytes]]

    @property
    def nbytes(self) -> int:
        block, width = gguf.GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // block * width

    def tofile(self, file: BinaryIO) -> None:
        """With `nbytes` all that GGUFWriter asks of an array, so that none is ever in memory whole."""
        for part in self.data():
            file.write(part)


def write_file(writer: gguf.GGUFWriter, path: Path, stored: Sequence[Stored]) -> None:
    """Metadata, then tensors, one block at a time.

    Raises:
        OSError: the disk is full or read-only; the file is then incomplete.
    """
    for tensor in stored:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, tensor.type)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in stored:
            writer.write_tensor_data(cast(Any, tensor))
    finally:
        writer.close()
    run.sync(path)
