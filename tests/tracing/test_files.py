"""Saved traces: OpenAI's shape, back again, and compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma.decode.sample import Sampling
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.tracing.difference import difference
from mlx_gemma.tracing.files import as_json, read, save
from mlx_gemma.tracing.record import Trace, trace

PROMPT = "Print the numbers from 1 to 5, one per line."


def test_the_shape_is_openai_s(nano: Gemma) -> None:
    found = trace(nano, PROMPT, top=4)
    held = as_json(found, nano.template)
    choice = held["choices"][0]
    content = choice["logprobs"]["content"]
    assert "".join(e["token"] for e in content) == choice["message"]["content"] == found.text.removesuffix("<turn|>")
    assert bytes(b for e in content for b in e["bytes"]).decode() == choice["message"]["content"]
    assert (choice["finish_reason"], held["trace"]["stop"]["token"]) == ("stop", "<turn|>")
    for entry, p in zip(content, found.positions, strict=False):
        assert (entry["logprob"], entry["id"], entry["rank"]) == (p.logprob, p.token, p.rank)
        assert [set(c) for c in entry["top_logprobs"]] == [{"token", "logprob", "bytes", "id"}] * 4
    assert held["usage"]["total_tokens"] == len(found.prompt_tokens) + len(found.positions)


def test_bytes_of_a_character_in_several_tokens(nano: Gemma) -> None:
    found = trace(nano, PROMPT, force="print('\N{SNOWMAN}')")
    content = as_json(found, nano.template)["choices"][0]["logprobs"]["content"]
    assert bytes(b for e in content for b in e["bytes"]).decode() == "print('\N{SNOWMAN}')"
    assert any(e["token"] == "\ufffd" for e in content)


@pytest.mark.parametrize("options", [{}, {"sampling": Sampling(1.2, seed=3)}, {"prompt_too": True}, {"max_tokens": 4}])
def test_back_again(nano: Gemma, tmp_path: Path, options: dict[str, Any]) -> None:
    found = trace(nano, PROMPT, system="Be short.", **options)
    save(found, nano.template, tmp_path / "trace.json")
    assert read(tmp_path / "trace.json") == found


def edit(path: Path, change: Any) -> None:
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h: h["trace"].update(schema=2), "a trace of schema 2; this version reads 1"),
        (lambda h: h.pop("trace"), "no saved trace"),
        (lambda h: h["choices"][0]["logprobs"]["content"][0].pop("id"), "no saved trace"),
        (lambda h: h["choices"][0]["logprobs"]["content"][0].update(top_logprobs=[]), "no saved trace"),
        (lambda h: h["choices"].clear(), "no saved trace"),
    ],
)
def test_damaged_files(nano: Gemma, tmp_path: Path, change: Any, says: str) -> None:
    save(trace(nano, PROMPT, max_tokens=3), nano.template, tmp_path / "trace.json")
    edit(tmp_path / "trace.json", change)
    with pytest.raises(UserError, match=says) as caught:
        read(tmp_path / "trace.json")
    assert "--save" in caught.value.fix


@pytest.mark.parametrize("content", [None, "", "[1]", "{", '{"trace": 1}', "[" * 100_000])
def test_no_trace(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=r"cannot be read|no saved trace"):
        read(tmp_path / "x.json")


def test_a_trace_differs_from_itself_in_nothing(nano: Gemma) -> None:
    found = trace(nano, PROMPT)
    same = difference(found, found)
    assert same.within(0.0)
    assert not same.flips


def test_where_two_models_part(nano: Gemma) -> None:
    """The second is told the other version: it leaves the first one's answer at ` range`, and not before."""
    one = trace(nano, PROMPT)
    other = trace(nano, PROMPT, force=one.text.removesuffix("<turn|>").replace(" range", " xrange"))
    found = difference(one, other)
    assert found.parted is not None
    assert (found.parted.a.text, found.parted.b.text) == (" range", " xrange")
    assert len(found.common) == found.parted.a.index + 1
    assert not found.within(100.0)
    assert found.largest.change < 1e-4  # up to there it is the same model behind the same tokens
    shorter = difference(one, trace(nano, PROMPT, max_tokens=5))
    assert shorter.parted is None
    assert not shorter.within(1.0)


def test_traces_of_two_prompts_are_not_compared(nano: Gemma) -> None:
    one, other = (trace(nano, p, max_tokens=2) for p in (PROMPT, "Something else."))
    with pytest.raises(UserError, match=r"different prompts.*trace compare"):
        difference(one, other)


def without(trace: Trace, index: int, token: str) -> Trace:
    """A trace whose list at one position has lost a token."""
    p = trace.positions[index]
    kept = [c for c in p.candidates if c.text != token]
    return replace(
        trace, positions=[*trace.positions[:index], replace(p, candidates=kept), *trace.positions[index + 1 :]]
    )


def test_a_rival_that_left_the_list_has_moved(nano: Gemma) -> None:
    one = trace(nano, PROMPT)
    index = next(p.index for p in one.positions if p.text == " range")
    found = difference(one, without(one, index, " xrange"))
    assert found.largest.a.index == index
    assert found.largest.change > 5  # from 38 % to no more than the least that is listed
    assert not found.within(1.0)
    assert difference(without(one, index, " xrange"), one).largest.change == found.largest.change


def test_another_best_token_that_one_trace_does_not_list(nano: Gemma) -> None:
    one = trace(nano, PROMPT, top=1)
    p = one.positions[6]
    best = replace(p.candidates[0], token=p.token + 1, chosen=False)
    other = replace(p, candidates=[best, p.candidates[0]])
    changed = replace(one, positions=[*one.positions[:6], other, *one.positions[7:]])
    assert difference(one, changed).largest.change == 0
    assert not difference(one, changed).within(1.0)
