"""The smoothed curve."""

from __future__ import annotations

import math

import pytest

from mlx_gemma.training.plot import smoothed


def test_the_first_value_stands_and_a_constant_stays() -> None:
    assert smoothed([3.0, 1.0])[0] == pytest.approx(3.0)
    assert smoothed([2.0] * 5) == pytest.approx([2.0] * 5)


def test_a_missing_value_does_not_blank_the_rest() -> None:
    values = smoothed([1.0, math.nan, 1.0])
    assert values == pytest.approx([1.0, 1.0, 1.0])
