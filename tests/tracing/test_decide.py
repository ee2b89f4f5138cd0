"""Decision points: joint probabilities against brute force, and where they are placed."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.tracing.decide import _Node, decide, follow, place
from mlx_gemma.tracing.record import trace

PROMPT = "Print the numbers from 1 to 5, one per line."


COUNTED: list[int] = []  # tokens that were computed


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = _Node.behind.__func__  # type: ignore[attr-defined]

    def counting(cls: type, gemma: Gemma, tokens: list[int], cache: object = None) -> _Node:
        COUNTED.append(len(tokens))
        return behind(cls, gemma, tokens, cache)

    monkeypatch.setattr(_Node, "behind", classmethod(counting))


def brute(gemma: Gemma, context: list[int], text: bytes) -> float:
    """Sum over all ways to write a text, each step a whole uncached pass, nothing left out."""
    logits = gemma.model(mx.array([context]))[0, -1].astype(mx.float32)
    p = np.array(mx.softmax(logits)).astype(np.float64)
    total = 0.0
    for token in range(len(p)):
        data = gemma.template.vocabulary.bytes_of(token)
        if not data:
            continue
        if data.startswith(text):
            total += p[token]
        elif text.startswith(data):
            total += p[token] * brute(gemma, [*context, token], text[len(data) :])
    return total


@pytest.mark.parametrize("texts", [("if", "is"), (" x", " r"), ("f(", "f["), ("\n", "()")])
def test_every_way_to_write_a_text_is_counted(nano: Gemma, texts: tuple[str, str]) -> None:
    """Against brute force, 1e-4 of the value and 1e-5 (ways under 1e-6 are not followed)."""
    context = trace(nano, PROMPT, max_tokens=1).prompt_tokens
    for prefix in ([], nano.template.encode("```python\nfor i in")):
        shared, found = follow(nano, [*context, *prefix], texts)
        for text, c in zip(texts, found, strict=True):
            assert c.joint == pytest.approx(brute(nano, [*context, *prefix], text.encode()), rel=1e-4, abs=1e-5)
        if shared:
            given = brute(nano, [*context, *prefix], shared.encode())
            assert found[0].probability == pytest.approx(found[0].joint / given, rel=1e-3)


def test_a_decision_of_single_tokens_is_the_trace_s(nano: Gemma) -> None:
    found = trace(nano, PROMPT)
    decision = decide(nano, found, [" range", " xrange"])
    rivals = {c.text: c.probability for c in found.positions[decision.index].candidates}
    for c in decision.continuations:
        assert c.joint == pytest.approx(rivals[c.text], abs=1e-5)
        assert c.tokens == [c.text]
    assert decision.before.endswith(" in")
    assert decision.shared == " "
    assert sum(c.probability for c in decision.continuations) == pytest.approx(1, abs=0.01)


def test_a_decision_inside_of_a_token(nano: Gemma) -> None:
    """`range` begins behind the blank of the token ` range`: the same decision."""
    found = trace(nano, PROMPT)
    whole, inside = (decide(nano, found, t) for t in ([" range", " xrange"], ["range", "xrange"]))
    assert inside.index == whole.index
    for a, b in zip(whole.continuations, inside.continuations, strict=True):
        assert a.probability == pytest.approx(b.probability, rel=1e-6)


def test_place(nano: Gemma) -> None:
    tokens = nano.template.encode("for i in range(3): print('é')")
    pieces = [nano.template.decode([t]) for t in tokens]

    def found(*texts: str) -> tuple[str, bytes] | None:
        at = place(tokens, texts, nano.template)
        return at and (pieces[at[0]], at[1])

    assert found(" range", " xrange") == (" range", b"")
    assert found("ange", "zzz") == (" range", b" r")
    assert found("or i", "x") == ("for", b"f")
    assert found("while", "until") is None
    at = place(tokens, ("é", "e'"), nano.template)
    assert at is not None
    assert nano.template.decode(tokens[: at[0]]).endswith("('")  # a character in two tokens, from its first on


def test_an_improbable_text_is_soon_done(nano: Gemma) -> None:
    """Beginnings are compared with the best one of their length: without that this takes thousands of tokens."""
    context = trace(nano, PROMPT, max_tokens=1).prompt_tokens
    before = len(COUNTED)
    _, found = follow(nano, context, ("the quick brown fox", "x" * 30))
    assert all(0 < c.joint < 1e-6 for c in found)
    assert len(COUNTED) - before < 400


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["a"], "between two texts"),
        (["a", "a"], "between two texts"),
        (["a", ""], "between two texts"),
        (["a", "a", "b"], "between two texts"),
        (["<turn|>", "b"], "a control token"),
        (["\udcff", "b"], "no UTF-8 text"),
        (["a", "ab"], "begins with"),
        (["lambda", "yield"], "none of 'lambda', 'yield' is in the answer"),
        (["a" * 65, "b"], "over 64 bytes"),
    ],
)
def test_bad_decisions(nano: Gemma, texts: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        decide(nano, trace(nano, PROMPT), texts)
