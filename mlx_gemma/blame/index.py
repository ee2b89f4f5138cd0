"""The index of a corpus: its places, sorted by the DEPTH tokens before what follows, the nearest first.

All places where one suffix of a context occurs then stand together, and the places of a longer suffix within them: each
is found by two binary searches. Behind DEPTH tokens the few places that are left are walked back from. (A suffix array
that is sorted only so deep: rows that repeat each other would make sorting to the end many times as long.)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

DEPTH = 12
LEARNED = 1 << 31
NO_TOKEN = LEARNED - 1
CHUNK = 1 << 20  # tokens scanned at once: 4 MB, which stay in the processor's cache
GROUP = 1 << 22  # places sorted at once, unless one token alone has more

Ids = npt.NDArray[np.uint32]
Lengths = npt.NDArray[np.int32]


def in_order(tokens: Ids) -> Iterator[Ids]:
    """The places where a LEARNED token stands, sorted, in parts.

    The order is of (nearest token, the one before it, ...), each by `rank`; behind a NO_TOKEN it means nothing.

    Cost: about 0.5 us a place; memory: 40 bytes a place of GROUP, or of the most frequent token.
    """
    counts, most = np.zeros(1, np.int64), 0
    for part in _parts(tokens):
        more = np.bincount(part[part >= LEARNED] - np.uint32(LEARNED), minlength=len(counts))
        more[: len(counts)] += counts
        counts, most = more, max(most, int(rank(part).max()))
    below = 0
    while below < len(counts):
        above = below + max(1, int(np.searchsorted(counts[below:].cumsum(), GROUP, side="right")))
        if counts[below:above].any():
            yield _sorted(tokens, _standing(tokens, below, above), most.bit_length())
        below = above


def rank(tokens: Ids) -> Ids:
    """What places are sorted by: NO_TOKEN is 0, a token its id + 1, LEARNED or not."""
    return (tokens + np.uint32(1)) & np.uint32(NO_TOKEN)


def _parts(tokens: Ids) -> Iterator[Ids]:
    return (tokens[first : first + CHUNK] for first in range(0, len(tokens), CHUNK))


def _standing(tokens: Ids, below: int, above: int) -> Ids:
    """Places of the LEARNED tokens with ids from `below` to `above` - 1, ascending."""
    shifted = (part - np.uint32(LEARNED + below) for part in _parts(tokens))  # what is less wraps round, and is more
    found = (np.flatnonzero(part < above - below) + i * CHUNK for i, part in enumerate(shifted))
    return np.concatenate([places.astype(np.uint32) for places in found])


def _sorted(tokens: Ids, at: Ids, bits: int) -> Ids:
    """Radix sort, the farthest tokens first. Every key has its own place in its low bits: that makes sorting stable,
    and gives the order without argsort, which takes eight times as long."""
    low = len(at).bit_length()
    each = (64 - low) // bits  # tokens in a key
    order = np.arange(len(at))
    for first in reversed(range(0, DEPTH, each)):
        key = np.zeros(len(at), np.uint64)
        for back in range(first, min(first + each, DEPTH)):
            key <<= np.uint64(bits)
            key |= rank(tokens.take(at - np.uint32(back), mode="clip"))
        key = key[order]
        key <<= np.uint64(low)
        key |= np.arange(len(at), dtype=np.uint64)
        key.sort()
        key &= np.uint64((1 << low) - 1)
        order = order[key.view(np.int64)]
    return at[order]


def ranges(tokens: Ids, index: Ids, context: Sequence[int]) -> list[tuple[int, int]]:
    """Where in the index the context's last 1, 2, ... tokens stand, as far as they do, to DEPTH; each in the last one.

    Cost: 50 to 60 places are looked at for each.
    """
    out, among, first, last = list[tuple[int, int]](), range(len(index)), 0, len(index)
    for back in range(min(DEPTH, len(context))):

        def key(i: int, back: int = back) -> int:
            return (int(tokens[int(index[i]) - back]) + 1) & NO_TOKEN

        wanted = context[-1 - back] + 1
        first = bisect_left(among, wanted, first, last, key=key)
        last = bisect_right(among, wanted, first, last, key=key)
        if first == last:
            break
        out.append((first, last))
    return out


def shared(tokens: Ids, at: Ids, context: Sequence[int], known: int) -> Lengths:
    """How many tokens up to each place equal the context's end, `known` of which are known to. Ends at NO_TOKEN."""
    out = np.full(len(at), known, np.int32)
    left = np.arange(len(at))
    for back in range(known, len(context)):
        left = left[tokens[at[left] - np.uint32(back)] & np.uint32(NO_TOKEN) == context[-1 - back]]
        if not len(left):
            break
        out[left] += 1
    return out
