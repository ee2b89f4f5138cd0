"""A model answers a suite and is judged: in batches, resumable, the same every time.

    rows = evaluate(gemma, read_suite(file))                     # greedy, and sampled where the suite's header says so
    rows = evaluate(gemma, suite, file=out / "results.jsonl")    # goes on where a run was killed

Greedy answers first, then the sampled ones; each kind is sorted by length of prompt and cut into batches. The batches
follow from suite, system prompt and batch size alone, and a batch that was not finished is done again as a whole: so a
resumed run equals an uninterrupted one. The seed of an item's sampled answer is the run's seed plus its place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mlx_gemma.decode.batch import generate_batch
from mlx_gemma.decode.generate import Generation, prompt_tokens
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.decode.scores import Scores
from mlx_gemma.errors import DataError, UserError
from mlx_gemma.evaluate.judge import judge
from mlx_gemma.evaluate.results import Mode, Row, append_rows, read_rows
from mlx_gemma.evaluate.sandbox import Wall
from mlx_gemma.evaluate.suite import Item, Suite
from mlx_gemma.gemma4.load import Gemma

BATCH = 16  # answers at once; of E2B some 2 GB of logits and caches at 1,000 tokens each (computed)
RIVALS = 3  # of each token, kept for the report


class Router(Protocol):
    """Who answers what: gate/gated.py, of which this package knows nothing more."""

    def route(self, query: str) -> str: ...

    def use(self, route: str) -> None: ...


@dataclass(frozen=True)
class Request:
    """One answer to be given; `place` is its item's in the suite, `route` who answers, "" where none is asked."""

    place: int
    item: Item
    route: str
    mode: Mode
    sampling: Sampling
    system: str | None
    tokens: list[int]

    @property
    def key(self) -> tuple[str, str]:
        return self.mode, self.item.id


def evaluate(
    gemma: Gemma,
    suite: Suite,
    *,
    system: str | None = None,
    seed: int = 0,
    sampled: bool = True,
    max_tokens: int | None = None,
    batch: int = BATCH,
    file: Path | None = None,
    wall: Wall | None = None,
    router: Router | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Row]:
    """Answer and judge all items, in the suite's order, greedy before sampled.

    Args:
        system: a system prompt, put before an item's own.
        sampled: also what the suite's header asks to be sampled.
        max_tokens: of an answer; by default the suite's.
        file: results.jsonl, to which finished batches are added, and whose rows are not made again.
        wall: as in `judge`: whether it holds is to be proved before.
        router: decides by each item's last message who answers it; batches have one route each.
        progress: called with answers done, and answers in all.

    Raises:
        DataError: an item that the template or the context refuses, with its place; a damaged `file`.
        UserError: code to run and no wall on this machine.
    """
    wanted = _requests(gemma, suite, system, seed, sampled, router)
    rows = {row.key: row for row in (read_rows(file) if file else [])}
    progress(len(rows), len(wanted))
    for requests in _batches(wanted, batch):
        missing = [r for r in requests if r.key not in rows]
        if not missing:
            continue
        if router is not None:
            router.use(requests[0].route)
        found = _answer(gemma, suite, requests, max_tokens or suite.header.max_tokens, wall)
        found = [row for row in found if row.key not in rows]
        if file:
            append_rows(file, found)
        rows |= {row.key: row for row in found}
        progress(len(rows), len(wanted))
    return [rows[request.key] for request in wanted]


def finished(suite: Suite, rows: Sequence[Row], *, sampled: bool = True) -> list[Row] | None:
    """The rows of a run in the order of `evaluate`; None where some are missing."""
    found = {row.key: row for row in rows}
    keys = [(mode, item.id) for mode, _, items in _plans(suite, sampled) for item in items]
    return [found[key] for key in keys] if all(key in found for key in keys) else None


def _plans(suite: Suite, sampled: bool) -> Iterator[tuple[Mode, float, Sequence[Item]]]:
    yield "greedy", 0.0, suite.items
    if sampled and (plan := suite.header.sampled) is not None:
        yield "sampled", plan.temperature, suite.items[: plan.items]


def _requests(
    gemma: Gemma, suite: Suite, system: str | None, seed: int, sampled: bool, router: Router | None
) -> list[Request]:
    found = []
    routes = {item.id: router.route(item.prompt) if router is not None else "" for item in suite.items}
    for mode, temperature, items in _plans(suite, sampled):
        for place, item in enumerate(items):
            both = "\n\n".join(text for text in (system, item.system) if text) or None
            head = [{"role": "system", "content": both}] if both else []
            try:
                tokens = prompt_tokens(gemma, [*head, *item.messages])
            except UserError as e:
                raise DataError(e.what, where=item.where or item.id, fix=e.fix) from e
            sampling = Sampling(temperature, seed=seed + place) if temperature else Sampling(seed=seed)
            found.append(Request(place, item, routes[item.id], mode, sampling, both, tokens))
    return found


def _batches(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    parts = sorted({(r.mode, r.route) for r in requests})
    for mode, route in parts:
        chosen = [r for r in requests if (r.mode, r.route) == (mode, route)]
        ordered = sorted(chosen, key=lambda r: (len(r.tokens), r.place))
        yield from (ordered[i : i + size] for i in range(0, len(ordered), size))


def _answer(gemma: Gemma, suite: Suite, requests: Sequence[Request], most: int, wall: Wall | None) -> list[Row]:
    started = time.perf_counter()
    prompts, samplings = [r.tokens for r in requests], [r.sampling for r in requests]
    answers: dict[int, tuple[Generation, list[Scores]]] = {}
    for at, generation, scores in generate_batch(gemma, prompts, samplings, most, top=RIVALS):
        answers[at] = generation, scores
    generations = [answers[at][0] for at in range(len(requests))]
    judged = judge(
        [(r.item, g.text) for r, g in zip(requests, generations, strict=True)],
        cut=[g.finish == "length" for g in generations],
        wall=wall,
    )
    seconds = (time.perf_counter() - started) / len(requests)
    rows = []
    for at, (request, generation, judgement) in enumerate(zip(requests, generations, judged, strict=True)):
        scores = answers[at][1]
        logprobs = [s.logprob for s in scores]
        rows.append(
            Row(
                suite=suite.header.name,
                id=request.item.id,
                type=request.item.type,
                cluster=request.item.cluster,
                column=column_of(suite, request.item),
                route=request.route,
                mode=request.mode,
                temperature=request.sampling.temperature,
                seed=request.sampling.seed,
                system=request.system,
                prompt="\n\n".join(m["content"] for m in request.item.messages),
                text=generation.text,
                verdicts=judgement.verdicts,
                reasons=judgement.reasons,
                bad=any(v in suite.header.bad for v in judgement.verdicts),
                finish=generation.finish,
                prompt_tokens=generation.prompt_tokens,
                seconds=seconds,
                logprob=math.fsum(logprobs) / len(logprobs),
                decision=math.exp(min(logprobs)),
                tokens=_shown(gemma, generation, scores),
            )
        )
    return rows


def column_of(suite: Suite, item: Item) -> str:
    """The value of the key that divides the suite, as text."""
    return str(item.record.get(suite.header.columns, "")) if suite.header.columns else ""


def _shown(gemma: Gemma, generation: Generation, scores: Sequence[Scores]) -> list[list[object]]:
    """[text, log-probability, [[rival, log-probability], ...]] of each token; a stop token's score is left out."""
    text = gemma.template.decode
    return [
        [
            text([token]),
            round(score.logprob, 4),
            [[text([other]), round(value, 4)] for other, value in score.top if other != token],
        ]
        for token, score in zip(generation.tokens, scores, strict=False)
    ]
