"""A tokenised training set on disk, indexed and mapped into memory: what lexical blame searches.

    tokens.npy        uint32 [T]      every row's token ids, one row behind another, each led by NO_TOKEN
    index.npy         uint32 [P]      the places in `tokens` with a target behind them, sorted by what stands before it
    starts.npy        int64 [R + 1]   where each row's NO_TOKEN stands; the last is T
    names.npy         uint8 [B]       the rows' `file:line`, UTF-8, one behind another
    name_starts.npy   int64 [R + 1]   where each of them begins; the last is B

The top bit of a token (LEARNED) says that the token behind it, in the same row, is a training target. A walk back from
a place ends at NO_TOKEN, which equals no token. How the index is sorted and searched: index.py.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mlx_gemma.blame.index import LEARNED, NO_TOKEN, Ids, in_order
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.template import Example

MOST = 1 << 32  # tokens that uint32 can count: some 20 million rows
NAMES = ("tokens", "index", "starts", "names", "name_starts")

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """The arrays of the module's docstring, read-only and mapped: only what is touched is read.

    `searched` is tokens and index again, mapped so that the system reads no more than the page that is touched: a
    search on a cold disk took 7 to 26 ms so, and 113 to 558 ms where it read 8 MB ahead (150,000 rows, two cores of an
    Intel Xeon at 2.10 GHz, Linux).
    """

    tokens: Ids
    index: Ids
    starts: Places
    names: npt.NDArray[np.uint8]
    name_starts: Places
    searched: tuple[Ids, Ids]

    def __len__(self) -> int:
        """Rows."""
        return len(self.starts) - 1

    def row_of(self, places: Ids) -> Places:
        """The rows that places in `tokens` lie in."""
        return np.searchsorted(self.starts, places, side="right") - 1

    def row(self, row: int) -> Ids:
        """A row's part of `tokens`, NO_TOKEN in front."""
        return self.tokens[self.starts[row] : self.starts[row + 1]]

    def where(self, row: int) -> str:
        """`file:line` of a row."""
        return self.names[self.name_starts[row] : self.name_starts[row + 1]].tobytes().decode("utf8")


def write(folder: Path, rows: Iterable[tuple[Example, str]]) -> None:
    """Write a corpus's arrays into an empty folder. Memory: 16 bytes a row, the names, and what `in_order` takes.

    Raises:
        UserError: no rows, or more tokens than the index can count.
    """
    starts, name_starts, names, total = array("q"), array("q", [0]), bytearray(), 0
    with _growing(folder / "tokens.npy") as append:
        for example, where in rows:
            ids = np.empty(len(example.tokens) + 1, np.uint32)
            ids[0], ids[1:] = NO_TOKEN, example.tokens
            ids[1:-1] |= np.array(example.supervised[1:], np.uint32) * np.uint32(LEARNED)
            append(ids)
            starts.append(total)
            total += len(ids)
            names += where.encode("utf8")
            name_starts.append(len(names))
    if not starts:
        raise UserError("no row to search", where=folder, fix="give data with at least one row")
    if total >= MOST:
        raise UserError(f"{total:,} tokens are too many to search", where=folder, fix=f"give fewer than {MOST:,}")
    starts.append(total)
    with _growing(folder / "index.npy") as append:
        for part in in_order(_mapped(folder / "tokens.npy")):
            append(part)
    np.save(folder / "starts.npy", np.array(starts))
    np.save(folder / "names.npy", np.frombuffer(names, np.uint8))
    np.save(folder / "name_starts.npy", np.array(name_starts))


@contextmanager
def _growing(path: Path) -> Iterator[Callable[[Ids], None]]:
    """A .npy file of uint32 whose length is known at the end: numpy pads the header for that."""
    total = 0

    def header(file: IO[bytes]) -> None:
        np.lib.format.write_array_header_1_0(file, {"descr": "<u4", "fortran_order": False, "shape": (total,)})

    with path.open("wb") as file:
        header(file)

        def append(ids: Ids) -> None:
            nonlocal total
            file.write(ids.astype("<u4", copy=False).data)
            total += len(ids)

        yield append
        file.seek(0)
        header(file)


def read(folder: Path) -> Corpus:
    """Open a corpus: milliseconds at any size.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        tokens, index, starts, names, name_starts = (_mapped(folder / f"{name}.npy") for name in NAMES)
        searched = [_mapped(folder / f"{name}.npy", mmap.MADV_RANDOM) for name in NAMES[:2]]
        corpus = Corpus(tokens, index, starts, names, name_starts, (searched[0], searched[1]))
        if corpus.starts[-1] != len(corpus.tokens) or corpus.name_starts[-1] != len(corpus.names):
            raise ValueError("its arrays do not fit together")
    except (OSError, ValueError, IndexError) as e:
        raise UserError(f"unreadable corpus: {e}", where=folder, fix="remove it; it is made anew") from e
    return corpus


def _mapped(path: Path, advice: int = mmap.MADV_NORMAL) -> npt.NDArray[Any]:
    array = np.load(path, mmap_mode="r")
    array.base.madvise(advice)
    return np.asarray(array)  # a plain array: numpy's memmap class costs time at every slice
