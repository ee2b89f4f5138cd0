"""Examples to batches: every example exactly once an epoch, in rows of few different shapes.

Two layouts. *Padded*: a row an example, rows of like length together. *Packed*: examples behind one another in rows of
`train.length` tokens, each seeing itself alone. Rows are right-padded, and padding is a document of its own, so nothing
real sees it and it is never a target. What an epoch holds is a function of seed and epoch alone, so that a run can go
on at any update.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import mlx.core as mx
import numpy as np

from mlx_gemma.gemma4.forward import Layout
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import TrainSection

WINDOW = 32  # padded rows are length-sorted within windows of this many updates, so that their order stays random
OPEN_ROWS = 64  # packed rows that are still being filled; more would fill them no better
PADDING = -1  # the document number of padding

T = TypeVar("T")
Row = list[int]  # examples that share a row
MicroBatch = list[Row]
Update = list[MicroBatch]


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes.

    Attributes:
        layout: rows, and the positions whose next token is a target.
        target: [N] int32, the token that follows each chosen position.
        weight: [N] float32, 1 for real targets and 0 for the padding of N.
        rows: which examples these are.
        targets: number of real targets.
    """

    layout: Layout
    target: mx.array
    weight: mx.array
    rows: tuple[int, ...]
    targets: int

    @property
    def arrays(self) -> tuple[mx.array, ...]:
        return *self.layout, self.target, self.weight


def collate(examples: Sequence[Example], rows: MicroBatch, length: int | None = None) -> Batch:
    """Lay the chosen examples out as one batch, in rows of `length` tokens or as long as they need to be."""
    length, size, width = shape(examples, rows, length)
    tokens, position = np.zeros((2, len(rows), length), np.int32)
    document = np.full((len(rows), length), PADDING, np.int32)
    chosen, target, counts = [], [], []
    for i, row in enumerate(rows):
        at = found = 0
        for number, index in enumerate(row):
            example = examples[index]
            ids = np.asarray(example.tokens, np.int32)
            end = at + len(ids) - 1
            tokens[i, at:end], document[i, at:end], position[i, at:end] = ids[:-1], number, np.arange(end - at)
            supervised = np.flatnonzero(example.supervised)
            chosen.append(i * length + at + supervised - 1)  # the position before a token predicts it
            target.append(ids[supervised])
            found += len(supervised)
            at = end
        counts.append(found)
    real = sum(counts)
    first = np.concatenate([[0], np.cumsum(counts)])
    grid = np.minimum(first[:-1, None] + np.arange(width), size - 1)
    owner = np.repeat(np.arange(len(rows)), counts)
    back = owner * width + np.arange(real) - first[owner]
    layout = (tokens, document, position, _filled(np.concatenate(chosen), size), grid, _filled(back, size))
    return Batch(
        Layout(*(mx.array(a.astype(np.int32)) for a in layout)),
        mx.array(_filled(np.concatenate(target), size)),
        mx.array((np.arange(size) < real).astype(np.float32)),
        tuple(e for row in rows for e in row),
        real,
    )


def shape(examples: Sequence[Example], rows: MicroBatch, length: int | None = None) -> tuple[int, int, int]:
    """Length of the rows, number of chosen positions, and how many of them a row of the grid holds: L, N, S."""
    length = length or max(sum(len(examples[e].tokens) - 1 for e in row) for row in rows)
    counts = [sum(examples[e].targets for e in row) for row in rows]
    size = round_up(sum(counts))
    return round_up(length), size, round_up(max(counts), steps=4) if len(rows) > 1 else size


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(size - len(values), values.dtype)]).astype(np.int32)


def round_up(n: int, steps: int = 8) -> int:
    """To a multiple of 32, of 64 beyond 64 * steps, of 128 beyond 128 * steps and so on: at most 1 / steps too much.

    Few shapes mean few compilations (trap: hundreds of compiled shapes exhaust Metal's resources, unsloth-zoo 918).
    """
    unit = 32
    while unit * steps * 2 <= n - 1:
        unit *= 2
    return unit * math.ceil(n / unit)


def epoch(lengths: Sequence[int], train: TrainSection, number: int, ranks: int = 1) -> list[Update]:
    """The updates of one pass over all examples; the last one may be smaller.

    Args:
        lengths: tokens of each example.
        number: of the epoch, from 0.
        ranks: machines that train together: an update has `accumulate` micro-batches for each.
    """
    rng = np.random.default_rng([train.seed, number])
    order = rng.permutation(len(lengths)).tolist()
    accumulate = train.accumulate * ranks
    if train.layout == "packed":
        micro = _cut(_pack(lengths, order, train.length), train.batch)
        rng.shuffle(micro)  # the last rows to be filled are the least random
        return _cut(micro, accumulate)
    updates: list[Update] = []
    for window in _cut(order, train.batch * accumulate * WINDOW):
        rows = [[r] for r in sorted(window, key=lambda r: lengths[r])]
        micro = _cut(rows, train.batch)
        rng.shuffle(micro)  # an update is not to be of one length
        updates += _cut(micro, accumulate)
    rng.shuffle(updates)
    return updates


def _cut(items: list[T], size: int) -> list[list[T]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _pack(lengths: Sequence[int], order: list[int], capacity: int) -> list[Row]:
    """First fit: each example goes into the first open row that has room for it."""
    done: list[Row] = []
    rows: list[tuple[int, Row]] = []  # (free tokens, examples)
    for example in order:
        need = lengths[example] - 1
        for i, (free, row) in enumerate(rows):
            if need <= free:
                rows[i] = (free - need, [*row, example])
                break
        else:
            rows.append((capacity - need, [example]))
            if len(rows) > OPEN_ROWS:
                fullest = min(range(len(rows)), key=lambda i: rows[i][0])
                done.append(rows.pop(fullest)[1])
    return done + [row for _, row in rows]


def stream(
    examples: Sequence[Example], train: TrainSection, start: int = 0, rank: int = 0, ranks: int = 1
) -> Iterator[list[Batch]]:
    """The micro-batches of update `start`, of the next, and so on, epoch after epoch; one machine's share of them."""
    lengths = [len(e.tokens) for e in examples]
    length = train.length if train.layout == "packed" else None
    for number in count():
        updates = epoch(lengths, train, number, ranks)
        for update in updates[start:]:
            yield [collate(examples, rows, length) for rows in update[rank::ranks]]
        start = max(0, start - len(updates))


def updates_in(epochs: float, lengths: Sequence[int], train: TrainSection, ranks: int = 1) -> int:
    """Updates in so many passes over the examples, at least one."""
    whole, part = divmod(epochs, 1)
    updates = sum(len(epoch(lengths, train, number, ranks)) for number in range(int(whole)))
    return max(1, updates + (math.ceil(part * len(epoch(lengths, train, int(whole), ranks))) if part else 0))
