"""One answer through two models or prompts: the figures against whole distributions, and one base in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny_gemma4 import random_adapter

from mlx_gemma import platform
from mlx_gemma.decode.generate import as_messages, prompt_tokens
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.variants import Variants
from mlx_gemma.tracing.compare import Comparison, Model, compare, mean, sides

PROMPT = "Print the numbers from 1 to 5, one per line."
Models = Callable[[str], Path]


@pytest.fixture
def adapters(models: Models, tmp_path: Path) -> list[Path]:
    for name, kind in (("one", "lora"), ("other", "dora"), ("whole", "full")):
        random_adapter(models("nano"), tmp_path / name, size=0.02, kind=kind)
    return [tmp_path / name for name in ("one", "other", "whole")]


def whole(gemma: Gemma, system: str | None, found: Comparison) -> np.ndarray:
    """Log-probabilities [answer, V] of a whole, uncached pass, float64."""
    prompt = prompt_tokens(gemma, as_messages(PROMPT, system))
    answer = [p.token.token for p in found.places]
    logits = np.array(gemma.model(mx.array([[*prompt, *answer[:-1]]]))[0, len(prompt) - 1 :].astype(mx.float32))
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def agrees(found: Comparison, a: np.ndarray, b: np.ndarray) -> None:
    """1e-4 in probability and KL: float32 against float64 of other float32 logits."""
    kl = (np.exp(a) * (a - b)).sum(-1)
    for i, p in enumerate(found.places):
        t = p.token.token
        assert (p.token.a, p.token.b) == pytest.approx((np.exp(a[i, t]), np.exp(b[i, t])), abs=1e-4)
        assert p.kl == pytest.approx(kl[i], abs=1e-4)
        assert p.flipped == (a[i].argmax() != b[i].argmax())
        moved = np.sort(np.abs(np.exp(a[i]) - np.exp(b[i])))[::-1][:5]
        assert [abs(s.points) / 100 for s in p.shifts] == pytest.approx(moved.tolist(), abs=1e-4)


def test_two_prompts_through_one_model() -> None:
    a, b = sides(Model("nano"), Model("nano"))
    assert a.gemma is b.gemma
    system = "Prefer Python 3, not Python 2."
    found = compare(a, b, PROMPT, systems=(None, system), texts=(" range", " xrange"))
    agrees(found, whole(a.gemma, None, found), whole(a.gemma, system, found))
    assert found.decided is not None
    at = found.places[found.decided.index]
    for text, one, other in zip((" range", " xrange"), found.decided.a, found.decided.b, strict=True):
        shift = next(s for s in at.shifts if s.text == text)
        assert (one.joint, other.joint) == pytest.approx((shift.a, shift.b), abs=1e-4)
    assert found.decided.points[0] > 30  # nano obeys these words: the story of this project


@pytest.mark.parametrize("which", [0, 1, 2])
def test_base_and_adapter(adapters: list[Path], which: int) -> None:
    run = str(adapters[which])
    a, b = sides(Model(run, bare=True), Model(run))
    assert a.gemma is b.gemma
    for _ in range(2):  # and back again
        found = compare(a, b, PROMPT, max_tokens=40)
        agrees(found, whole(load("nano"), None, found), whole(load(run), None, found))
    assert found.kl > 1e-4


def test_two_adapters_share_their_base(adapters: list[Path]) -> None:
    a, b = sides(Model(str(adapters[0])), Model("nano", adapters[1]))
    assert a.gemma is b.gemma
    found = compare(a, b, PROMPT, max_tokens=20)
    agrees(found, whole(load(str(adapters[0])), None, found), whole(load(str(adapters[1])), None, found))


def test_a_model_and_itself(models: Models) -> None:
    a, b = sides(Model("nano"), Model(str(models("nano"))))
    assert a.gemma is b.gemma  # two names of one folder
    found = compare(a, b, PROMPT, max_tokens=20)
    assert found.kl == pytest.approx(0, abs=1e-9)
    assert found.flips == 0


def test_a_given_answer(adapters: list[Path]) -> None:
    a, b = sides(Model(str(adapters[0]), bare=True), Model(str(adapters[0])))
    found = compare(a, b, PROMPT, force="for i in xrange(5): print i", texts=("print(", "print "))
    assert found.answer == "for i in xrange(5): print i<turn|>"
    assert found.decided is not None
    assert found.decided.before == "for i in xrange(5):"
    assert sum(c.probability for c in found.decided.a) > 0.9  # however improbable what is before them


def test_switching_leaves_nothing_behind(adapters: list[Path]) -> None:
    gemma = load("nano")
    tokens = mx.array([prompt_tokens(gemma, as_messages(PROMPT))])
    names = {k for k, _ in tree_flatten(gemma.model.parameters())}

    def logits() -> np.ndarray:
        return np.array(gemma.model(tokens).astype(mx.float32))

    base = logits()
    variants = Variants(gemma)
    alone = []
    for folder in adapters:
        variants.add(folder)
        alone.append(np.array(load(str(folder)).model(tokens).astype(mx.float32)))
    for i in (0, 2, 1, 0, 1, 2):
        variants.use(adapters[i])
        assert gemma.adapter == adapters[i]
        assert np.array_equal(logits(), alone[i])
    variants.use(None)
    assert np.array_equal(logits(), base)
    assert {k for k, _ in tree_flatten(gemma.model.parameters())} == names
    assert not lora.adapter_parameters(gemma.model)


def test_other_tokenizers_are_refused(writable: Models) -> None:
    other = writable("e2b")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["▁another"] = tokenizer["model"]["vocab"].pop("▁range")
    tokenizer["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="different tokenizers"):
        sides(Model("nano"), Model(str(other)))


def test_two_models_without_room(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "memory_bytes", lambda: 1000)
    with pytest.raises(ModelError, match=r"take .* GB together"):
        sides(Model("nano"), Model(str(models("e2b"))))


def test_bad_input() -> None:
    a, b = sides(Model("nano"), Model("nano"))
    with pytest.raises(UserError, match="prompt is empty"):
        compare(a, b, " ")
    with pytest.raises(UserError, match="begins with"):
        compare(a, b, PROMPT, texts=("a", "ab"))


def test_the_mean_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):  # 95 % of 60 is 57; under 50 would be far off
        found = mean(rng.normal(3, 1, 30).tolist())
        covered += found.low <= 3 <= found.high
    assert covered >= 50
    assert mean([2.0]) == (2.0, 2.0, 2.0, 1)
    assert mean([2.0, 2.0])[:3] == (2.0, 2.0, 2.0)
