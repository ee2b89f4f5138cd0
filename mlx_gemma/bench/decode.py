"""Seconds per query: our decoding loop and mlx-lm's, on the same loaded weights and the same prompts, alternating.

Not in the figures: loading, rendering the prompt, detokenising. Greedy, so both do the same work. Loading is given
apart, as a user waits for it: the first import of mlx-lm and transformers is in it.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from mlx_gemma import platform
from mlx_gemma.data.records import read_eval_items
from mlx_gemma.decode.generate import as_messages, decode, prompt_tokens
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.gate.gated import Gated, open_gated
from mlx_gemma.gemma4.load import Gemma, load


@dataclass(frozen=True)
class Side:
    """Medians over the queries, in seconds; `middle_half` are the quartiles of seconds per query."""

    query: float
    middle_half: tuple[float, float]
    prefill: float
    decode: float
    speed: float  # tokens a second of decoding


@dataclass(frozen=True)
class Result:
    model: str
    adapter: str | None
    queries: int
    tokens: int
    identical: int  # queries in which both gave the same tokens
    load: float
    ours: Side
    mlx_lm: Side
    machine: dict[str, str]
    gate: str | None = None
    routed: dict[str, int] = field(default_factory=dict)  # queries, by who answered
    routing: float = 0.0  # seconds a query, median; not in `ours`

    @property
    def ratio(self) -> float:
        return self.ours.query / self.mlx_lm.query

    def as_row(self) -> dict[str, Any]:
        return {"date": date.today().isoformat(), "bench": "decode", **asdict(self), "ratio": self.ratio}


def read_prompts(path: Path, limit: int) -> list[str]:
    """The `prompt` of the first `limit` lines of a JSONL file.

    Raises:
        DataError: see `read_eval_items`.
    """
    return [item.prompt for item in islice(read_eval_items(path), limit)]


def measure(model: str, adapter: Path | None, prompts: list[str], max_tokens: int, gate: Path | None = None) -> Result:
    """Measure both sides, with the model that the gate chooses for each prompt, where there is one.

    The first prompt is routed, and run once by each, beforehand, unmeasured.

    Raises:
        UserError: see `load` and `open_gated`.
    """
    started = time.perf_counter()
    gated = open_gated(gate, model, adapter) if gate is not None else None
    gemma = gated.gemma if gated is not None else load(model, adapter=adapter)
    loaded = time.perf_counter() - started
    queries = [prompt_tokens(gemma, as_messages(p)) for p in prompts]
    routes, routing = [""] * len(prompts), [0.0]
    if gated is not None:
        routes, routing = _routed(gated, prompts)
        gated.use(routes[0])
    sides = (_ours, _mlx_lm)
    for side in sides:
        side(gemma, queries[0], max_tokens)
    runs: list[list[tuple[list[int], float, float]]] = [[], []]
    for i, query in enumerate(queries):
        if gated is not None:
            gated.use(routes[i])
        for s in (0, 1) if i % 2 == 0 else (1, 0):
            runs[s].append(sides[s](gemma, query, max_tokens))
    return Result(
        model=model,
        adapter=str(adapter) if adapter else None,
        queries=len(queries),
        tokens=sum(len(tokens) for tokens, _, _ in runs[0]),
        identical=sum(a[0] == b[0] for a, b in zip(*runs, strict=True)),
        load=loaded,
        ours=_side(runs[0]),
        mlx_lm=_side(runs[1]),
        machine=platform.describe(),
        gate=str(gate) if gate is not None else None,
        routed=dict(Counter(routes)) if gate is not None else {},
        routing=statistics.median(routing),
    )


def _routed(gated: Gated, prompts: list[str]) -> tuple[list[str], list[float]]:
    gated.route(prompts[0])  # loads the encoder
    routes, seconds = [], []
    for prompt in prompts:
        started = time.perf_counter()
        routes.append(gated.route(prompt))
        seconds.append(time.perf_counter() - started)
    return routes, seconds


def _ours(gemma: Gemma, query: list[int], max_tokens: int) -> tuple[list[int], float, float]:
    return _timed(gemma, (s.token for s in decode(gemma, query, Sampling(), max_tokens)))


def _mlx_lm(gemma: Gemma, query: list[int], max_tokens: int) -> tuple[list[int], float, float]:
    import mlx.core as mx
    from mlx_lm.generate import generate_step, generation_stream, wired_limit

    with wired_limit(gemma.model, [generation_stream]):  # as its stream_generate does
        return _timed(gemma, (int(t) for t, _ in generate_step(mx.array(query), gemma.model, max_tokens=max_tokens)))


def _timed(gemma: Gemma, steps: Any) -> tuple[list[int], float, float]:
    """(tokens, seconds to the first token, seconds from there to the stop)."""
    tokens: list[int] = []
    started = first = time.perf_counter()
    for token in steps:
        if not tokens:
            first = time.perf_counter()
        tokens.append(token)
        if token in gemma.stop_tokens:
            break
    return tokens, first - started, time.perf_counter() - first


def _side(runs: list[tuple[list[int], float, float]]) -> Side:
    queries = [prefill + decoding for _, prefill, decoding in runs]
    low, _, high = statistics.quantiles(queries, n=4) if len(queries) > 1 else (queries[0],) * 3
    return Side(
        query=statistics.median(queries),
        middle_half=(low, high),
        prefill=statistics.median(p for _, p, _ in runs),
        decode=statistics.median(d for _, _, d in runs),
        speed=sum(len(t) - 1 for t, _, _ in runs) / max(1e-9, sum(d for _, _, d in runs)),
    )
