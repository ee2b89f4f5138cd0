"""What several tests of traces share: nano, one of its answers, and where its rivals would have led."""

from __future__ import annotations

import pytest

from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.tracing.branches import Branch, branches
from mlx_gemma.tracing.record import Trace, trace

PROMPT = "Print the numbers from 1 to 5, one per line."


@pytest.fixture(scope="module")
def nano() -> Gemma:
    return load("nano")


@pytest.fixture(scope="module")
def found(nano: Gemma) -> Trace:
    return trace(nano, PROMPT, prompt_too=True)


@pytest.fixture(scope="module")
def forks(nano: Gemma, found: Trace) -> list[Branch]:
    return branches(nano, found)
