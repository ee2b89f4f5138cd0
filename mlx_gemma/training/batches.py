"""Examples to batches: rows of like length together, every example exactly once an epoch.

Rows are right-padded and carry no padding mask: under causal attention nothing real sees the padding behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_gemma.gemma4.template import Example

MULTIPLE = 32  # row lengths and target counts are rounded up to this: few shapes, few compilations
WINDOW = 32  # batches are length-sorted within windows of this many updates, so that their order stays random


@dataclass(frozen=True)
class Batch:
    """Padded rows, and for each row the positions whose next token is a target.

    Attributes:
        tokens: [B, L] int32, inputs.
        source: [B, S] int32, positions in the row.
        target: [B, S] int32, the token that follows each.
        weight: [B, S] float32, 1 for real targets and 0 for the padding of S.
        rows: which examples these are.
        targets: number of real targets.
    """

    tokens: mx.array
    source: mx.array
    target: mx.array
    weight: mx.array
    rows: tuple[int, ...]
    targets: int


def collate(examples: Sequence[Example], rows: Sequence[int]) -> Batch:
    """Lay the chosen examples out as one batch."""
    chosen = [examples[r] for r in rows]
    length = round_up(max(len(e.tokens) for e in chosen) - 1)
    tokens = np.zeros((len(chosen), length), np.int32)
    source, target, weight = np.zeros((3, len(chosen), round_up(max(e.targets for e in chosen))), np.int32)
    for i, example in enumerate(chosen):
        ids = np.asarray(example.tokens, np.int32)
        tokens[i, : len(ids) - 1] = ids[:-1]
        at = np.flatnonzero(example.supervised)
        source[i, : len(at)] = at - 1  # the position before a token predicts it
        target[i, : len(at)] = ids[at]
        weight[i, : len(at)] = 1
    arrays = (mx.array(tokens), mx.array(source), mx.array(target), mx.array(weight.astype(np.float32)))
    return Batch(*arrays, tuple(rows), int(weight.sum()))


def epoch(examples: Sequence[Example], batch: int, accumulate: int, rng: np.random.Generator) -> Iterator[list[Batch]]:
    """One pass over all examples, as the micro-batches of each update; the last update may be smaller."""
    order = rng.permutation(len(examples))
    window = batch * accumulate * WINDOW
    updates: list[list[list[int]]] = []
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window].tolist(), key=lambda r: len(examples[r].tokens))
        micro = [rows[i : i + batch] for i in range(0, len(rows), batch)]
        updates += [micro[i : i + accumulate] for i in range(0, len(micro), accumulate)]
    for i in rng.permutation(len(updates)):
        yield [collate(examples, rows) for rows in updates[i]]


def endless(examples: Sequence[Example], batch: int, accumulate: int, seed: int) -> Iterator[list[Batch]]:
    """Epoch after epoch from one persistent, seeded stream."""
    rng = np.random.default_rng(seed)
    while True:
        yield from epoch(examples, batch, accumulate, rng)


def updates_per_epoch(rows: int, batch: int, accumulate: int) -> int:
    """Updates in one pass over `rows` examples, as `epoch` makes them."""
    window = batch * accumulate * WINDOW
    full, rest = divmod(rows, window)
    return full * WINDOW + math.ceil(math.ceil(rest / batch) / accumulate)


def round_up(n: int) -> int:
    """To the next multiple of MULTIPLE."""
    return MULTIPLE * math.ceil(n / MULTIPLE)
