"""One answer through two models, or behind two prompts: where, and by how much, do they think otherwise?

Both sides read the same answer (that of side A, or a given one), so positions are aligned whatever the prompts. KL and
the shifts are of the whole distributions, float32; only a few values a position leave the device.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from mlx_gemma import platform
from mlx_gemma.decode.generate import as_messages, decode, prompt_tokens
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.decode.scores import HEAD, exact, states
from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import WEIGHTS, find
from mlx_gemma.gemma4.layers import head
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.variants import Variants
from mlx_gemma.tracing.decide import Continuation, check, follow, place
from mlx_gemma.tracing.record import answer_tokens

SHIFTS = 5  # tokens a position whose probability moved most


@dataclass(frozen=True)
class Shift:
    """A token's probability on both sides."""

    token: int
    text: str
    a: float
    b: float

    @property
    def points(self) -> float:
        """Percentage points from A to B."""
        return 100 * (self.b - self.a)


@dataclass(frozen=True)
class Place:
    """One position of the answer. `kl` is KL(A || B) in nats; `shifts` are sorted by size."""

    index: int
    token: Shift
    best: tuple[Shift, Shift]  # the most probable token of A, and of B
    kl: float
    shifts: list[Shift]

    @property
    def flipped(self) -> bool:
        return self.best[0].token != self.best[1].token


@dataclass(frozen=True)
class Decided:
    """Competing continuations on both sides, where the first of them stands in the answer."""

    index: int
    before: str
    a: list[Continuation]
    b: list[Continuation]

    @property
    def points(self) -> list[float]:
        """How far each continuation moved from A to B, in percentage points."""
        return [100 * (y.probability - x.probability) for x, y in zip(self.a, self.b, strict=True)]


@dataclass(frozen=True)
class Comparison:
    prompt: str
    answer: str
    places: list[Place]
    decided: Decided | None = None

    @property
    def kl(self) -> float:
        """Mean over the positions, nats."""
        return math.fsum(p.kl for p in self.places) / len(self.places)

    @property
    def flips(self) -> int:
        return sum(p.flipped for p in self.places)


@dataclass(frozen=True)
class Model:
    """What to load: `nano`, a folder, a hub id or a run folder; `bare`: a run's base alone, as it was trained on."""

    name: str
    adapter: Path | None = None
    bare: bool = False


@dataclass(frozen=True)
class Side:
    """A loaded model, made ready by `use`."""

    gemma: Gemma
    use: Callable[[], None]
    name: str


def sides(a: Model, b: Model) -> tuple[Side, Side]:
    """Load two models, or one twice: a base that is the same, and quantised alike, is in memory once.

    Raises:
        ModelError: a model that cannot be loaded, two that have no room together, or with other tokenizers.
    """
    bases, adapters = zip(*(_parts(model) for model in (a, b)), strict=True)
    if bases[0].key != bases[1].key:
        _check_room(bases)
    loaded: dict[Any, Variants] = {}
    found = []
    for model, base, adapter in zip((a, b), bases, adapters, strict=True):
        if base.key not in loaded:
            loaded[base.key] = Variants(load(base.name, revision=base.revision, **dict(base.options)))
        variants = loaded[base.key]
        if adapter is not None:
            lora.check_base(adapter, variants.gemma.checkpoint)
            variants.add(adapter)
        name = f"{base.name}" if model.bare else model.name + (f" + {model.adapter}" if model.adapter else "")
        found.append(Side(variants.gemma, partial(variants.use, adapter), name))
    if found[0].gemma.template.tokenizer.get_vocab() != found[1].gemma.template.tokenizer.get_vocab():
        what = "the two models have different tokenizers, so their tokens cannot be aligned"
        raise ModelError(what, where=b.name, fix="compare models of one family")
    return found[0], found[1]


class _Base(NamedTuple):
    name: str
    revision: str | None
    options: tuple[tuple[str, str], ...]  # `load`'s, what it is quantised to in memory
    folder: Path

    @property
    def key(self) -> tuple[Path, tuple[tuple[str, str], ...]]:
        return self.folder, self.options


def _parts(model: Model) -> tuple[_Base, Path | None]:
    """A base and an adapter; two ways to name one folder are one base."""
    folder = Path(os.path.expanduser(model.name))
    adapter, (name, revision) = model.adapter, (model.name, None)
    if adapter is None and os.path.isdir(folder) and lora.is_run(folder):
        adapter, (name, revision) = folder, lora.base_of(folder)
    options = tuple(sorted(lora.quantization_of(adapter).items())) if adapter else ()
    return _Base(name, revision, options, find(name, revision).folder.resolve()), None if model.bare else adapter


def _check_room(bases: Sequence[_Base]) -> None:
    """Whether two bases fit in memory side by side, as their files are.

    Raises:
        ModelError: they do not.
    """
    sizes = [sum(f.stat().st_size for f in base.folder.glob(WEIGHTS)) for base in bases]
    if sum(sizes) > platform.memory_bytes():
        both, there = sum(sizes) / 1e9, platform.memory_bytes() / 1e9
        what = f"the two models take {both:.1f} GB together, and this machine has {there:.1f} GB"
        raise ModelError(what, fix="compare adapters of one base, which share it, or quantised models")


def compare(
    a: Side,
    b: Side,
    prompt: str,
    *,
    prompt_b: str | None = None,
    systems: tuple[str | None, str | None] = (None, None),
    force: str | None = None,
    texts: Sequence[str] = (),
    max_tokens: int = 128,
) -> Comparison:
    """Both sides over one answer: A's own greedy one, or `force`.

    Args:
        prompt, prompt_b: of side A, and of side B where it is another.
        systems: the system turns of A and B.
        texts: competing continuations, to be followed where the first of them stands in the answer; see `decide`.

    Raises:
        UserError: see `prompt_tokens`, `answer_tokens` and `decide.check`.

    Cost: the answer is generated once and read once by each side.
    """
    prompts = (prompt, prompt if prompt_b is None else prompt_b)
    asked = [prompt_tokens(a.gemma, as_messages(p, s)) for p, s in zip(prompts, systems, strict=True)]
    longest = max(map(len, asked))
    if texts:
        check(texts, a.gemma.template)
    a.use()
    if force is None:
        budget = min(max_tokens, min(a.gemma.context, b.gemma.context) - longest)
        answer = []
        for step in decode(a.gemma, asked[0], Sampling(), budget):
            answer.append(step.token)
            if step.token in a.gemma.stop_tokens:
                break
    else:
        answer = answer_tokens(a.gemma, force, longest)
    hidden = []
    for side, tokens in zip((a, b), asked, strict=True):
        side.use()
        hidden.append(mx.concatenate(list(states(side.gemma.text, [*tokens, *answer[:-1]], len(tokens) - 1))))
    places: list[Place] = []
    for i in range(0, len(answer), HEAD):
        rows = tuple(h[i : i + HEAD] for h in hidden)
        places += _places(a.gemma, b.gemma, rows, answer[i : i + HEAD], i)
    if not all(math.isfinite(p.kl) for p in places):
        raise ModelError("the probabilities are not finite", fix="check the adapters: a training may have diverged")
    decided = _decided(a, b, asked, answer, texts) if texts else None
    return Comparison(prompt, a.gemma.template.decode(answer), places, decided)


def _places(a: Gemma, b: Gemma, hidden: Sequence[mx.array], tokens: list[int], first: int) -> list[Place]:
    logprobs = []
    for gemma, rows in zip((a, b), hidden, strict=True):
        logits = head(gemma.text, rows)
        ids = mx.concatenate([mx.argpartition(-logits, kth=9, axis=-1)[:, :10], mx.array(tokens)[:, None]], axis=1)
        logits = exact(gemma.text, rows, logits, ids)
        logprobs.append(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    one, other = logprobs
    p = mx.exp(one)
    kl = mx.maximum((p * (one - other)).sum(axis=-1), 0)  # rounding may leave a trace below 0
    moved = mx.argpartition(-mx.abs(p - mx.exp(other)), kth=SHIFTS - 1, axis=-1)[:, :SHIFTS]
    best = mx.stack([one.argmax(axis=-1), other.argmax(axis=-1), mx.array(tokens, mx.uint32)], axis=1)
    ids = mx.concatenate([best, moved], axis=1)
    shares = [np.array(mx.exp(mx.take_along_axis(x, ids, axis=1)), np.float64) for x in (one, other)]
    out = []
    for i, (names, k) in enumerate(zip(np.array(ids).tolist(), np.array(kl).tolist(), strict=True)):
        found = [Shift(t, a.template.decode([t]), *(float(s[i, j]) for s in shares)) for j, t in enumerate(names)]
        ranked = sorted(found[3:], key=lambda s: (-abs(s.points), s.token))
        out.append(Place(first + i, found[2], (found[0], found[1]), k, ranked))
    return out


def _decided(a: Side, b: Side, asked: Sequence[list[int]], answer: list[int], texts: Sequence[str]) -> Decided | None:
    if (at := place(answer, texts, a.gemma.template)) is None:
        return None
    index, lead = at
    found = []
    for side, tokens in zip((a, b), asked, strict=True):
        side.use()
        found.append(follow(side.gemma, [*tokens, *answer[:index]], texts, lead)[1])
    return Decided(index, a.gemma.template.decode(answer[:index]), *found)


class Mean(NamedTuple):
    """A mean over prompts with a 95 % bootstrap interval (BCa, 9,999 resamples); the interval is the mean for one."""

    value: float
    low: float
    high: float
    size: int


def mean(values: Sequence[float]) -> Mean:
    """Mean and interval of at least one value."""
    from scipy.stats import bootstrap

    data = np.array(values, np.float64)
    if len(data) < 2 or np.ptp(data) == 0:
        return Mean(float(data.mean()), float(data.mean()), float(data.mean()), len(data))
    interval = bootstrap((data,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return Mean(float(data.mean()), float(interval.low), float(interval.high), len(data))
