"""Batches: every example once an epoch, every target at its place."""

from __future__ import annotations

import numpy as np
import pytest

from mlx_gemma.gemma4.template import Example
from mlx_gemma.training import batches


def examples(count: int, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        prompt, answer = rng.integers(3, 40), rng.integers(1, 40)
        tokens = rng.integers(5, 3000, prompt + answer).tolist()
        made.append(Example(tokens, [False] * int(prompt) + [True] * int(answer)))
    return made


def targets_of(batch: batches.Batch) -> list[tuple[int, list[int]]]:
    """(the tokens up to and including a source position, its target), read back from the arrays."""
    rows, found = np.array(batch.tokens), []
    arrays = (np.array(a) for a in (batch.source, batch.target, batch.weight))
    for row, *line in zip(rows, *arrays, strict=True):
        found += [(int(t), row[: s + 1].tolist()) for s, t, w in zip(*line, strict=True) if w]
    return found


def test_targets_follow_their_context_and_padding_is_never_one() -> None:
    # T9: mlx-lm's mask (steps <= length) trains one pad token of every padded row.
    rows = examples(5)
    batch = batches.collate(rows, range(5))
    expected = [(e.tokens[i], e.tokens[:i]) for e in rows for i in range(len(e.tokens)) if e.supervised[i]]
    assert sorted(targets_of(batch)) == sorted(expected)
    assert batch.targets == sum(e.targets for e in rows)


def test_two_turns_in_one_row() -> None:
    example = Example([2, 10, 11, 12, 13, 14], [False, False, True, False, True, True])
    assert targets_of(batches.collate([example], [0])) == [
        (11, [2, 10]),
        (13, [2, 10, 11, 12]),
        (14, [2, 10, 11, 12, 13]),
    ]


@pytest.mark.parametrize(("count", "batch", "accumulate"), [(1, 8, 1), (7, 8, 1), (8, 8, 1), (100, 8, 3), (600, 4, 2)])
def test_an_epoch_sees_every_example_once(count: int, batch: int, accumulate: int) -> None:
    # T37: mlx-lm-lora draws with replacement.
    rows = examples(count)
    updates = list(batches.epoch(rows, batch, accumulate, np.random.default_rng(0)))
    seen = [r for update in updates for b in update for r in b.rows]
    assert sorted(seen) == list(range(count))
    assert len(updates) == batches.updates_per_epoch(count, batch, accumulate)
    assert all(len(update) <= accumulate and len(b.rows) <= batch for update in updates for b in update)


def test_lengths_are_sorted_so_padding_is_small() -> None:
    # mlx-lm sorts by the number of dict keys, not by length: 31.6 % extra compute in one user's count (issue 596).
    rows = examples(512)
    real = sum(len(e.tokens) - 1 for e in rows)

    def padded(updates: list[list[batches.Batch]]) -> int:
        return sum(b.tokens.size for update in updates for b in update)

    sorted_size = padded(list(batches.epoch(rows, 8, 1, np.random.default_rng(0))))
    unsorted = padded([[batches.collate(rows, range(i, i + 8))] for i in range(0, 512, 8)])
    assert sorted_size / real < 1.45
    assert sorted_size < 0.8 * unsorted


def test_the_order_is_seeded_and_changes_between_epochs() -> None:
    rows = examples(64)

    def first_two_epochs(seed: int) -> list[tuple[int, ...]]:
        stream = batches.endless(rows, 8, 1, seed)
        return [b.rows for _ in range(16) for b in next(stream)]

    once = first_two_epochs(3)
    assert once == first_two_epochs(3)
    assert once != first_two_epochs(4)
    assert once[:8] != once[8:]
