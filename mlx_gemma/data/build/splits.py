"""Train, validation and test: proposed so that groups stay whole. (leakage.py looks through given ones.)

    splitter = Splitter(by="family")
    for row in rows:
        splitter.add(row)
    names = splitter.propose()                       # "train", "valid" or "test" of every row, in the order of adding

A split made row by row measures memory rather than skill wherever rows come in families (wordings of one task, chapters
of one source). Groups are a key's values (the row's "family", "source" and so on), or, with `by="prompts"`, clusters of
nearly equal prompts. Deterministic: the same rows and seed give the same splits.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

import numpy as np

from mlx_gemma.data.checks.duplicates import Shingles, bands, jaccard, prompt_shingles, signature
from mlx_gemma.data.formats import Row
from mlx_gemma.data.row_keys import KEYS, value_of
from mlx_gemma.errors import UserError

SPLITS = ("train", "valid", "test")
SHARES = (0.8, 0.1, 0.1)
NEAR = 0.75  # Jaccard similarity of prompts from which on they ask the same, as in contamination.py


class Splitter:
    """Rows' groups and task types, and the splits that follow from them.

    Memory: 8 bytes a row and the groups' names; with `by="prompts"` also every prompt's shingles, some kB.

    Args:
        by: the key of a row that names its group, or "prompts" for clusters of nearly equal prompts.
        shares: of train, valid and test; they add up to 1.
        seed: which groups are held out.

    Raises:
        UserError: shares that are none.
    """

    def __init__(self, by: str = "family", shares: tuple[float, float, float] = SHARES, seed: int = 0) -> None:
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or shares[0] == 0:
            told = ", ".join(f"{share:g}" for share in shares)
            raise UserError(f"shares of {told} are none", fix="give three that add up to 1, the first above 0")
        self.by, self.shares, self.seed = by, shares, seed
        self._groups, self._tasks = array("i"), array("i")
        self._group_ids: dict[str, int] = {}
        self._task_ids: dict[str, int] = {}
        self._prompts: list[Shingles] = []

    def add(self, row: Row) -> None:
        """Note a row's group and task type.

        Raises:
            UserError: it has not the key that names the group.
        """
        if self.by == "prompts":
            self._prompts.append(prompt_shingles(row.prompt))
        elif (group := value_of(row.extra, (self.by,))) is None:
            keys = ", ".join(sorted(map(repr, row.extra))[:5]) or "none"
            raise UserError(
                f"has no {self.by!r} to be grouped by (other keys: {keys})", where=row.where, fix="group by prompts"
            )
        else:
            self._groups.append(self._group_ids.setdefault(group, len(self._group_ids)))
        task = value_of(row.extra, KEYS["tasks"]) or ""
        self._tasks.append(self._task_ids.setdefault(task, len(self._task_ids)))

    def propose(self) -> list[str]:
        """The split of every row, in the order of adding.

        Task types are split one by one, so that each is in all splits by its share as far as its groups allow: in an
        order drawn by the seed, a group is held out if that brings the split nearer to its share. What one type is
        short of, the next makes up for.

        Raises:
            UserError: a split that is asked for stays empty, as there are too few groups.
        """
        groups = clusters(self._prompts) if self.by == "prompts" else list(self._groups)
        named = list(self._group_ids)
        held: dict[int, str] = {}
        owed = dict.fromkeys(SPLITS, 0.0)
        for sizes in _by_task(groups, self._tasks):
            order = sorted(sizes, key=lambda g: self._drawn(named[g] if named else str(g)))
            left = len(order)
            for split, share in list(zip(SPLITS, self.shares, strict=True))[1:]:
                wanted, taken = share * sum(sizes.values()) + owed[split], 0
                for group in order:
                    if left > 1 and group not in held and abs(taken + sizes[group] - wanted) < abs(taken - wanted):
                        held[group] = split
                        taken += sizes[group]
                        left -= 1
                owed[split] = wanted - taken
        names = [held.get(g, "train") for g in groups]
        for split, share in zip(SPLITS, self.shares, strict=True):
            if share and split not in names:
                n = len(set(groups))
                what = (
                    f"{n} {'group' if n == 1 else 'groups'} by {self.by!r} of {len(groups)} rows: {split} stays empty"
                )
                fix = "group by another key, or by prompts" if self.by != "prompts" else "give it a share of 0"
                raise UserError(what, fix=fix)
        return names

    def _drawn(self, group: str) -> bytes:
        return blake2b(f"{self.seed}:{group}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _by_task(groups: list[int], tasks: Iterable[int]) -> list[dict[int, int]]:
    """{group: rows} of every task type, in the order in which types came; a group belongs to its most frequent type."""
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for group, task in zip(groups, tasks, strict=True):
        counts[group][task] += 1
    by_task: defaultdict[int, dict[int, int]] = defaultdict(dict)
    for group, of in sorted(counts.items()):
        by_task[min(of, key=lambda t: (-of[t], t))][group] = of.total()
    return [by_task[task] for task in sorted(by_task)]


def clusters(prompts: Sequence[Shingles], threshold: float = NEAR) -> list[int]:
    """For every prompt the first one of its cluster: any two prompts `threshold` similar are in one cluster.

    Single linkage, unlike the audit's duplicates: what is held out shall be near to nothing that is trained. Candidates
    by MinHash LSH, then verified. Memory: 512 bytes a prompt; time: about 0.3 ms.
    """
    parent = list(range(len(prompts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    equal: dict[bytes, int] = {}
    for i, shingles in enumerate(prompts):
        parent[i] = equal.setdefault(shingles.tobytes(), i)
    distinct = np.fromiter(equal.values(), np.int64, len(equal))
    signatures = np.stack([signature(prompts[i]) for i in distinct]) if len(equal) else np.empty((0, 1), np.uint32)
    count, width = bands(threshold)
    for band in range(count if len(equal) else 0):
        keys = np.ascontiguousarray(signatures[:, band * width : (band + 1) * width])
        _, bucket, sizes = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        order = np.argsort(bucket, kind="stable")
        for members in np.split(distinct[order], np.cumsum(sizes)[:-1]):
            if members.size > 1:
                _unite_similar(prompts, members.tolist(), threshold, parent, root)
    return [root(i) for i in range(len(prompts))]


def _unite_similar(
    prompts: Sequence[Shingles], members: list[int], threshold: float, parent: list[int], root: Callable[[int], int]
) -> None:
    """Unite the clusters of a bucket's members that are similar; members of one cluster are not compared."""
    together: dict[int, list[int]] = {}
    for i in members:
        together.setdefault(root(i), []).append(i)
    done: list[list[int]] = []
    for first in together.values():
        group, apart = first, []
        for other in done:
            if any(jaccard(prompts[i], prompts[j]) >= threshold for i in group for j in other):
                a, b = sorted((root(group[0]), root(other[0])))
                parent[b] = a
                group = group + other
            else:
                apart.append(other)
        done = [*apart, group]
