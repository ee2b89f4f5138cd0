"""The page of a trace, as a document: its data, and that no text gets out of it. test_page_browser.py looks at it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.tracing.branches import Branch, branches
from mlx_gemma.tracing.page import page, shown
from mlx_gemma.tracing.pieces import pieces
from mlx_gemma.tracing.record import Candidate, Position, Trace
from mlx_gemma.tracing.render import heat

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    "\"'`&quot;&lt;{{data}}",
    "🎉é",
    "\u2028\u2029",
    "\N{RIGHT-TO-LEFT OVERRIDE}abc",
    "\\u003c",
]


def position(index: int, text: str, probability: float, entropy: float = 0.0, rivals: tuple[str, ...] = ()) -> Position:
    """Token ids are arbitrary; the rivals share what is left."""
    logprob = math.log(probability)
    rest = [Candidate(100 + i, r, math.log((1 - probability) / len(rivals)), False) for i, r in enumerate(rivals)]
    candidates = sorted([Candidate(index, text, logprob, True), *rest], key=lambda c: -c.logprob)
    return Position(index, index, text, logprob, 0, entropy, candidates)


def hostile() -> tuple[Trace, list[Branch]]:
    answer = [position(i, text, 0.6, 0.5, tuple(HOSTILE)) for i, text in enumerate(HOSTILE)]
    text = "".join(HOSTILE)
    messages = [{"role": h, "content": h} for h in HOSTILE]
    made = Trace([1, 2], answer, text, "length", answer, text, text, messages)
    rival = next(c for c in answer[1].candidates if not c.chosen)
    return made, [Branch(1, rival, [Candidate(7, h, -0.1, True) for h in HOSTILE], rival.text + text, "length")]


def data_of(document: str) -> Any:
    return json.loads(document.split('type="application/json">')[1].split("</script>")[0])


def test_every_number_is_the_traces(found: Trace, forks: list[Branch]) -> None:
    data = data_of(page(found, forks))
    near = {"rel": 1e-6, "abs": 1e-12}  # the page keeps seven digits
    for key, positions in (("answer", found.positions), ("prompt", found.prompt)):
        for shown_, p in zip(data[key], positions, strict=True):
            assert (shown_["index"], shown_["token"], shown_["text"], shown_["rank"]) == (
                p.index,
                p.token,
                p.text,
                p.rank,
            )
            assert shown_["heat"] == heat(p.probability)
            for name in ("logprob", "probability", "entropy", "margin"):
                assert shown_[name] == pytest.approx(getattr(p, name), **near)
            for c, candidate in zip(shown_["candidates"], p.candidates, strict=True):
                assert (c["token"], c["text"], c["chosen"]) == (candidate.token, candidate.text, candidate.chosen)
                assert c["probability"] == pytest.approx(candidate.probability, **near)
    for unit, joined in data["pieces"].items():
        for piece, p in zip(joined, pieces(found.positions, unit), strict=True):
            assert piece["probability"] == pytest.approx(p.probability, **near)
            inside = data["answer"][piece["first"] : piece["first"] + piece["count"]]
            assert "".join(q["text"] for q in inside) == p.text
            assert piece["entropy"] == max(q["entropy"] for q in inside)
            assert inside[piece["least"]]["logprob"] == min(q["logprob"] for q in inside)
    logprob = math.fsum(p.logprob for p in found.positions)
    assert data["totals"]["logprob"] == pytest.approx(logprob, **near)
    assert data["totals"]["perplexity"] == pytest.approx(math.exp(-logprob / len(found.positions)), **near)
    assert "".join(p["shown"] for p in data["answer"]) == found.text


def test_a_branch_stands_beside_the_answer_with_the_differences_marked(found: Trace, forks: list[Branch]) -> None:
    data = data_of(page(found, forks))
    for made, branch in zip(data["branches"], forks, strict=True):
        assert "".join(t["shown"] for t in made["tokens"]) == branch.text
        assert made["logprob"] == pytest.approx(branch.alternative.logprob + branch.logprob, rel=1e-6)
        original = found.positions[branch.position : branch.position + len(made["original"])]
        assert made["original_joint"]["logprob"] == pytest.approx(sum(p.logprob for p in original), rel=1e-6)
        texts = [t["shown"] for t in made["tokens"] if t["same"]]
        assert texts == [p.text for p, same in zip(original, made["original"], strict=True) if same]
        (at,) = [c["branch"] for c in data["answer"][branch.position]["candidates"] if c["text"] == made["alternative"]]
        assert data["branches"][at] is made
    (xrange,) = [b for b in data["branches"] if b["alternative"] == " xrange"]
    assert [t["shown"] for t in xrange["tokens"] if not t["same"]] == [
        " xrange",
        " num",
    ]  # and `print num`, no brackets


def test_both_are_shown_to_their_ends_but_a_cut_branch_only_as_far_as_it_goes(nano: Gemma, found: Trace) -> None:
    cut = data_of(page(found, branches(nano, found, length=3)))["branches"]
    assert {len(b["original"]) for b in cut} == {4}
    whole = data_of(page(found, branches(nano, found)))["branches"]
    assert {b["position"] + len(b["original"]) for b in whole} == {len(found.positions)}


@pytest.mark.parametrize(
    ("texts", "text", "expected"),
    [
        (["a", "�", "�", "�", "�", " x"], "a🎉 x", ["a", "🎉", "", "", "", " x"]),
        (["�", "�"], "é", ["é", ""]),
        (["�", "�", ",", "�", "�", "�"], "é,日", ["é", "", ",", "日", "", ""]),
        (["�", "�", "�", "x"], "本x", ["本", "", "", "x"]),
        (["�", "b"], "something else", ["�", "b"]),
        (["a", "b"], "ab", ["a", "b"]),
    ],
)
def test_a_character_of_several_tokens_is_shown_once(texts: list[str], text: str, expected: list[str]) -> None:
    assert shown([position(i, t, 0.5) for i, t in enumerate(texts)], text) == expected


def test_the_policy_allows_this_style_and_this_script_and_no_more() -> None:
    document = page(*hostile())
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', document)[0])
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for tag in ("style", "script"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", document, re.DOTALL)
        assert len(inside) == 1
        digest = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"\b(src|href)=|@import|url\(|https?:", page(Trace([1], [position(0, "a", 0.5)], "a")))


def test_a_tokens_text_stays_inside_the_data() -> None:
    document = page(*hostile())
    assert document.count("</script>") == 2
    assert "<!--<script>" not in document
    assert not {"\u2028", "\u2029"} & set(document)
    assert [p["text"] for p in data_of(document)["answer"]] == HOSTILE


def test_what_cannot_be_shown(found: Trace) -> None:
    with pytest.raises(UserError, match="no tokens"):
        page(replace(found, positions=[]))
    broken = replace(found.positions[0], entropy=math.nan)
    with pytest.raises(UserError, match="not finite"):
        page(replace(found, positions=[broken, *found.positions[1:]]))
