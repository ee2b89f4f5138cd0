"""Batches: every example once an epoch, every target at its place, in both layouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
import pytest

from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import TrainSection
from mlx_gemma.training import batches
from mlx_gemma.training.batches import PADDING, Batch, collate, epoch, round_up, stream, updates_in

KINDS: tuple[Literal["padded", "packed"], ...] = ("padded", "packed")
SIZES = [(1, 8, 1), (7, 8, 1), (8, 8, 1), (100, 8, 3), (600, 4, 2)]


def examples(count: int, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        prompt, answer = rng.integers(3, 40), rng.integers(1, 40)
        tokens = rng.integers(5, 3000, prompt + answer).tolist()
        made.append(Example(tokens, [False] * int(prompt) + [True] * int(answer)))
    return made


def lengths(rows: Sequence[Example]) -> list[int]:
    return [len(e.tokens) for e in rows]


def section(layout: str, **values: Any) -> TrainSection:
    return TrainSection(**{"epochs": 1, "layout": layout, "length": 100} | values)


def targets_of(batch: Batch) -> list[tuple[int, list[int]]]:
    """(a target, what precedes it in its document), read back from the arrays."""
    tokens, document, chosen = (np.array(a) for a in (batch.layout.tokens, batch.layout.document, batch.layout.chosen))
    found = []
    for place, target, weight in zip(chosen, np.array(batch.target), np.array(batch.weight), strict=True):
        row, column = divmod(int(place), tokens.shape[1])
        before = np.flatnonzero(document[row, : column + 1] == document[row, column])
        if weight:
            assert document[row, column] != PADDING
            found.append((int(target), tokens[row, before].tolist()))
    return found


def expected(rows: Sequence[Example]) -> list[tuple[int, list[int]]]:
    return [(e.tokens[i], e.tokens[:i]) for e in rows for i in range(len(e.tokens)) if e.supervised[i]]


LAID_OUT = [[[0], [1], [2], [3], [4]], [[0, 1, 2, 3, 4]], [[3, 0], [1], [4, 2]]]


@pytest.mark.parametrize("rows", LAID_OUT)
def test_targets_follow_their_context_and_padding_is_never_one(rows: list[list[int]]) -> None:
    # T9: mlx-lm's mask (steps <= length) trains one pad token of every padded row.
    made = examples(5)
    batch = collate(made, rows)
    assert sorted(targets_of(batch)) == sorted(expected(made))
    assert batch.targets == sum(e.targets for e in made) == int(np.array(batch.weight).sum())
    assert batch.rows == tuple(e for row in rows for e in row)


def test_two_turns_in_one_row() -> None:
    example = Example([2, 10, 11, 12, 13, 14], [False, False, True, False, True, True])
    assert targets_of(collate([example], [[0]])) == [(11, [2, 10]), (13, [2, 10, 11, 12]), (14, [2, 10, 11, 12, 13])]


@pytest.mark.parametrize("rows", LAID_OUT)
def test_an_example_lies_in_one_piece(rows: list[list[int]]) -> None:
    made = examples(5)
    layout = collate(made, rows, 512).layout
    tokens, document, position = (np.array(a) for a in (layout.tokens, layout.document, layout.position))
    assert tokens.shape == (len(rows), 512)
    for i, row in enumerate(rows):
        at = 0
        for number, index in enumerate(row):
            ids = made[index].tokens[:-1]
            here = slice(at, at + len(ids))
            assert tokens[i, here].tolist() == ids
            assert (document[i, here] == number).all()
            assert position[i, here].tolist() == list(range(len(ids)))
            at += len(ids)
        assert (document[i, at:] == PADDING).all()


@pytest.mark.parametrize("rows", LAID_OUT)
def test_the_grid_holds_every_row_s_positions_and_leads_back(rows: list[list[int]]) -> None:
    made = examples(5)
    batch = collate(made, rows)
    layout, real = batch.layout, batch.targets
    length = layout.tokens.shape[1]
    chosen, grid, back = (np.array(a) for a in (layout.chosen, layout.grid, layout.back))
    assert grid.min() >= 0
    assert grid.max() < len(chosen)
    assert (grid.reshape(-1)[back[:real]] == np.arange(real)).all()
    assert (back[:real] // grid.shape[1] == chosen[:real] // length).all()
    assert (np.diff(chosen[:real]) > 0).all()


@pytest.mark.parametrize("layout", KINDS)
@pytest.mark.parametrize(("count", "batch", "accumulate"), SIZES)
def test_an_epoch_sees_every_example_once(layout: str, count: int, batch: int, accumulate: int) -> None:
    # T37: mlx-lm-lora draws with replacement.
    rows = examples(count)
    train = section(layout, batch=batch, accumulate=accumulate)
    updates = epoch(lengths(rows), train, 0)
    micro = [m for update in updates for m in update]
    assert sorted(e for m in micro for row in m for e in row) == list(range(count))
    assert len(updates) == updates_in(1, lengths(rows), train)
    assert all(1 <= len(update) <= accumulate for update in updates)
    assert all(1 <= len(m) <= batch for m in micro)
    if layout == "padded":
        assert len(updates) == math.ceil(math.ceil(count / batch) / accumulate)
        assert all(len(row) == 1 for m in micro for row in m)


def test_packed_rows_are_full_and_never_over_length() -> None:
    rows = examples(600)
    train = section("packed", length=256, batch=4)
    sums = [sum(len(rows[e].tokens) - 1 for e in row) for u in epoch(lengths(rows), train, 0) for m in u for row in m]
    assert max(sums) <= 256
    assert sum(sums) / (256 * len(sums)) > 0.97
    for batch in next(stream(rows, train)):
        assert batch.layout.tokens.shape[1] == 256


def test_a_packed_row_may_be_filled_to_the_last_token() -> None:
    made = [Example([5] * 33, [False] + [True] * 32), Example([6] * 17, [False] * 16 + [True])] * 2
    (update,) = epoch(lengths(made), section("packed", length=48), 0)
    assert sorted(len(row) for row in update[0]) in ([2, 2], [1, 1, 2])
    found = [t for rows in update for t in targets_of(collate(made, rows, 48))]
    assert sorted(found) == sorted(expected(made))


def test_lengths_are_sorted_so_padding_is_small() -> None:
    # mlx-lm sorts by the number of dict keys, not by length: 31.6 % extra compute in one user's count (issue 596).
    rows = examples(512)
    real = sum(len(e.tokens) - 1 for e in rows)

    def padded(micro: list[list[list[int]]]) -> int:
        return sum(collate(rows, m).layout.tokens.size for m in micro)

    sorted_size = padded([m for update in epoch(lengths(rows), section("padded"), 0) for m in update])
    unsorted = padded([[[r] for r in range(i, i + 8)] for i in range(0, 512, 8)])
    assert sorted_size / real < 1.45
    assert sorted_size < 0.8 * unsorted


@pytest.mark.parametrize("layout", KINDS)
def test_the_order_is_seeded_and_changes_between_epochs(layout: str) -> None:
    rows = examples(64)

    def epochs(seed: int) -> list[Any]:
        return [epoch(lengths(rows), section(layout, seed=seed), number) for number in (0, 1)]

    once = epochs(3)
    assert once == epochs(3)
    assert once[0] != epochs(4)[0]
    assert once[0] != once[1]


@pytest.mark.parametrize("layout", KINDS)
@pytest.mark.parametrize("start", [0, 1, 6, 7, 8, 23])
def test_a_stream_goes_on_at_any_update(layout: str, start: int) -> None:
    # mlx-lm starts an interrupted run at its first rows again.
    rows = examples(50)
    train = section(layout, batch=2, accumulate=2)

    def seen(first: int, count: int) -> list[Any]:
        return [[b.rows for b in update] for update in islice(stream(rows, train, first), count)]

    whole = seen(0, 32)  # of 7 to 13 updates an epoch
    assert seen(start, 9) == whole[start : start + 9]
    batch, again = (next(islice(stream(rows, train, n), k, None))[0] for n, k in ((start, 2), (0, start + 2)))
    assert all((np.array(a) == np.array(b)).all() for a, b in zip(batch.arrays, again.arrays, strict=True))


@pytest.mark.parametrize("layout", KINDS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_machines_share_an_epoch(layout: str, ranks: int) -> None:
    rows = examples(90)
    train = section(layout, batch=2, accumulate=2)
    updates = epoch(lengths(rows), train, 0, ranks)
    shares = [list(islice(stream(rows, train, 0, rank, ranks), len(updates))) for rank in range(ranks)]
    seen = [e for share in shares for update in share for batch in update for e in batch.rows]
    assert sorted(seen) == list(range(90))
    for number, update in enumerate(updates):
        parts = [[b.rows for b in share[number]] for share in shares]
        whole = [tuple(e for row in micro for e in row) for micro in update]
        assert sorted(r for part in parts for r in part) == sorted(whole)
        assert all(len(part) <= train.accumulate for part in parts)


@pytest.mark.parametrize("layout", KINDS)
def test_parts_of_an_epoch_are_counted(layout: str) -> None:
    sizes = lengths(examples(100))
    train = section(layout, batch=4)
    first, second = (len(epoch(sizes, train, number)) for number in (0, 1))
    assert updates_in(1, sizes, train) == first
    assert updates_in(2, sizes, train) == first + second
    assert updates_in(0.5, sizes, train) == math.ceil(first / 2)
    assert updates_in(1.25, sizes, train) == first + math.ceil(second / 4)
    assert updates_in(0.001, sizes, train) == 1
    assert updates_in(1, sizes, train, ranks=2) == len(epoch(sizes, train, 0, 2)) < first


def test_rounding_up_wastes_little_and_makes_few_shapes() -> None:
    # T35: few shapes, few compilations.
    sizes = range(1, 20_000)
    rounded = [round_up(n) for n in sizes]
    assert all(m % 32 == 0 for m in rounded)
    assert all(0 <= m - n < 32 or m <= n * 1.125 for n, m in zip(sizes, rounded, strict=True))
    assert all(m <= n * 1.125 for n, m in zip(sizes, rounded, strict=True) if n > 256)
    assert rounded == sorted(rounded)
    assert len({m for m in rounded if m <= 1024}) <= 8 + 8 + 8 + 8
    assert (round_up(0), round_up(1), round_up(512), round_up(513)) == (0, 32, 512, 576)


def test_window_is_of_updates_so_the_order_stays_random() -> None:
    """Rows of like length meet, but only within a window of updates: an epoch is not short rows first."""
    rows = examples(2000)
    means = [
        np.mean([len(rows[r[0]].tokens) for m in update for r in m])
        for update in epoch(lengths(rows), section("padded"), 0)
    ]
    half = len(means) // 2
    assert abs(np.mean(means[:half]) - np.mean(means[half:])) < 4
    assert batches.WINDOW * 8 < 2000
