"""Decision points: joint probabilities against brute force, and where they are placed."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.tracing.decide import decide, follow, place
from mlx_gemma.tracing.record import trace

PROMPT = "Print the numbers from 1 to 5, one per line."


@pytest.fixture(scope="module")
def nano() -> Gemma:
    return load("nano")


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


def test_place() -> None:
    tokens = ["for", " i", " in", " range", "("]
    assert place(tokens, ["in ", " in"]) == (2, "")
    assert place(tokens, ["ange", "zzz"]) == (3, " r")
    assert place(tokens, ["or i", "x"]) == (0, "f")
    assert place(tokens, ["while"]) is None


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["a"], "between two texts"),
        (["a", "a"], "between two texts"),
        (["a", ""], "between two texts"),
        (["a", "ab"], "begins with"),
        (["lambda", "yield"], "none of 'lambda', 'yield' is in the answer"),
        (["a" * 65, "b"], "over 64 bytes"),
    ],
)
def test_bad_decisions(nano: Gemma, texts: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        decide(nano, trace(nano, PROMPT), texts)
