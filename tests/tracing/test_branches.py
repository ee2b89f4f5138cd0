"""Branches: equal to decoding from scratch, within and beyond the sliding window, and the prompt is computed once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma.decode.generate import decode
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.tracing.branches import Branch, branches
from mlx_gemma.tracing.record import Trace, trace

PROMPT = "Print the numbers from 1 to 5, one per line."
LONG = "".join(f"def function_{i}(a, b):\n    return a + b * {i}\n\n\n" for i in range(20))


@pytest.fixture(scope="module")
def short(nano: Gemma) -> Trace:
    return trace(nano, PROMPT)


def scratch(gemma: Gemma, found: Trace, branch: Branch, length: int) -> tuple[list[int], list[float]]:
    """The same branch, its whole text computed anew."""
    tokens = [*found.prompt_tokens, *(p.token for p in found.positions[: branch.position]), branch.alternative.token]
    out: list[int] = []
    logprobs: list[float] = []
    for step in decode(gemma, tokens, Sampling(), length, top=1):
        assert step.scores is not None
        out.append(step.token)
        logprobs.append(step.scores.logprob)
        if step.token in gemma.stop_tokens:
            break
    return out, logprobs


def check(gemma: Gemma, found: Trace, made: list[Branch], length: int) -> None:
    for branch in made:
        tokens, logprobs = scratch(gemma, found, branch, length)
        assert [c.token for c in branch.continuation] == tokens
        # Float32, in parts of other sizes: 1e-4 nats a token.
        assert [c.logprob for c in branch.continuation] == pytest.approx(logprobs, abs=1e-4)
        assert branch.logprob == pytest.approx(sum(logprobs), abs=1e-4 * len(tokens))
        assert branch.text == gemma.template.decode([branch.alternative.token, *tokens])
        assert branch.finish == ("stop" if tokens[-1] in gemma.stop_tokens else "length")


def test_a_branch_equals_decoding_from_scratch(nano: Gemma, short: Trace) -> None:
    made = branches(nano, short, length=24)
    assert len(made) >= 4
    assert {b.finish for b in made} == {"stop"}
    assert any(b.text.startswith(" xrange(") for b in made)
    check(nano, short, made, 24)
    cut = branches(nano, short, length=3)
    assert {b.finish for b in cut} == {"length"}
    assert {len(b.continuation) for b in cut} == {3}
    check(nano, short, cut, 3)


def test_beyond_the_sliding_window_every_branch_has_a_cache_of_its_own(nano: Gemma) -> None:
    # nano's window is 128. Several branches leave from one position, and the answer is walked on after each: over many
    # tokens or over one, which the rotating cache writes in place.
    found = trace(nano, PROMPT, force=LONG, top=3)
    sparse = [p if p.index % 100 == 40 or 200 <= p.index < 203 else replace(p, candidates=[]) for p in found.positions]
    made = branches(nano, replace(found, positions=sparse), length=8, least=0)
    made = [b for b in made if b.alternative.token not in nano.stop_tokens]
    at = [b.position for b in made]
    assert min(at) < 128 < 2 * 128 < max(at)
    assert len(at) >= 2 * len(set(at))
    check(nano, found, made, 8)


def test_the_most_probable_alternatives_come_first(nano: Gemma, short: Trace) -> None:
    made = branches(nano, short, length=1)
    rivals = [c for p in short.positions for c in p.candidates if not c.chosen and c.probability >= 0.02]
    assert [b.alternative for b in made] == sorted(rivals, key=lambda c: -c.logprob)
    assert [b.alternative for b in branches(nano, short, most=2, length=1)] == [b.alternative for b in made[:2]]
    assert branches(nano, short, least=1.0) == []


def test_the_prompt_is_computed_once(nano: Gemma, short: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(nano.text.model)
    original, seen = kind.__call__, []

    def counted(self: Any, ids: mx.array, *args: Any, **kwargs: Any) -> Any:
        seen.append(ids.size)
        return original(self, ids, *args, **kwargs)

    monkeypatch.setattr(kind, "__call__", counted)
    made = branches(nano, short, length=4)
    walked = len(short.prompt_tokens) + max(b.position for b in made)
    assert sum(seen) == walked + sum(len(b.continuation) for b in made)


def test_a_stop_token_has_no_continuation(nano: Gemma, short: Trace) -> None:
    forced = trace(nano, PROMPT, force=short.text.removesuffix("<turn|>") + "\n")
    (ending,) = [b for b in branches(nano, forced) if b.alternative.token in nano.stop_tokens]
    assert (ending.continuation, ending.logprob, ending.finish, ending.text) == ([], 0, "stop", "<turn|>")


def test_a_branch_stays_in_the_context(nano: Gemma, short: Trace) -> None:
    room = Gemma(nano.model, nano.template, nano.checkpoint, nano.stop_tokens, len(short.prompt_tokens) + 9)
    lengths = {b.position: len(b.continuation) for b in branches(room, short)}
    assert lengths[4] == 4
    assert lengths[6] == 2


@pytest.mark.parametrize("wrong", [{"most": 0}, {"length": 0}, {"least": -0.1}, {"least": 1.5}])
def test_out_of_range(nano: Gemma, short: Trace, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="out of range"):
        branches(nano, short, **wrong)
