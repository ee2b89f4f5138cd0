"""Degenerate repetition: an answer that goes round in a circle, as greedy decoding of a broken model does.

A stretch of text is periodic where every character equals the one `period` before it; the longest such stretch over all
periods up to PERIOD is looked for, white space taken together. It is degenerate where it is at least LENGTH characters,
at least ROUNDS rounds, has letters in it, and makes up a quarter of the answer: a ruler of 80 dashes and a table's
equal cells are none. Of the reference answers in evals/ and the rows of datasets/python3 none is
(tests/evaluate/test_repetition.py).
"""

from __future__ import annotations

import re

import numpy as np

PERIOD, LENGTH, ROUNDS, SHARE = 160, 120, 5, 0.25
READ = 20_000  # characters


def repetition(answer: str) -> str | None:
    """What an answer repeats, shortened; None where it does not. About 1 ms for a page."""
    text = re.sub(r"\s+", " ", answer[:READ]).strip()
    if len(text) < LENGTH:
        return None
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    least = max(LENGTH, int(SHARE * len(text)))
    for period in range(1, min(PERIOD, len(text) // ROUNDS) + 1):
        same = np.concatenate([[False], codes[period:] == codes[:-period], [False]])
        edges = np.flatnonzero(same[1:] != same[:-1])
        starts, ends = edges[::2], edges[1::2]
        if not len(starts):
            continue
        longest = int(np.argmax(ends - starts))
        length = int(ends[longest] - starts[longest]) + period
        unit = text[starts[longest] : starts[longest] + period]
        if length >= max(least, ROUNDS * period) and any(map(str.isalpha, unit)):
            return unit.strip()[:60]
    return None
