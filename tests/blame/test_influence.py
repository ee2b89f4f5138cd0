"""Which rows caused a token: exact derivatives, planted rows found, the right signs, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from planted import COUNT, PLANTED, context, resolved, rows, token

from mlx_gemma.blame.derivatives import continuation, decision_gradient, set_parameters, token_derivatives
from mlx_gemma.blame.influence import Influence, example_at, influence, run_recipe
from mlx_gemma.blame.trained import corpus_of_run
from mlx_gemma.blame.trajectory import trajectory
from mlx_gemma.decode.scores import forced
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.template import Example
from mlx_gemma.training import snapshots
from mlx_gemma.training.loop import train

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on `rows()`."""
    return train(resolved(tmp_path_factory.mktemp("influence")))


@pytest.fixture(scope="module")
def gemma(place: Path) -> Gemma:
    return load(str(place))


@pytest.fixture(scope="module")
def found(place: Path, gemma: Gemma) -> Influence:
    return influence(gemma, place, context(gemma), token(gemma, "min"), token(gemma, "max"))


def answering(first: list[int], word: str) -> int:
    """How many of these rows answer with `word`."""
    made = rows()
    return sum(f" {word}(" in made[i]["messages"][1]["content"] for i in first)


def test_planted_rows_are_found_and_their_opposites_are_last(found: Influence) -> None:
    order = [b.row for b in found.rows]
    assert sorted(order) == list(range(COUNT))
    assert answering(order[:PLANTED], "min") >= 0.9 * PLANTED
    right, others = (np.mean(scores(found, answer)) for answer in (" max(", " sum("))
    assert found.rows[0].score > 0 > right
    assert right < others
    assert found.preconditioned


def test_a_row_is_blamed_for_the_word_that_is_wrong(place: Path, gemma: Gemma, found: Influence) -> None:
    corpus = corpus_of_run(place, gemma.template)
    for b in found.rows[:5]:
        assert example_at(corpus, b.row).tokens[b.token] == token(gemma, "min")[0]


def scores(found: Influence, answer: str) -> list[float]:
    """Of the rows with this in their answer."""
    made = rows()
    return [b.score for b in found.rows if answer in made[b.row]["messages"][1]["content"]]


def test_rows_are_named_by_their_place_in_the_data(place: Path, found: Influence) -> None:
    best = found.rows[0]
    assert best.where == f"{run_recipe(place).data.train}:{best.row + 1}"


def test_the_value_is_the_models_and_the_total_the_rows(gemma: Gemma, found: Influence) -> None:
    scored = forced(gemma.text, [*context(gemma), *token(gemma, "min")], len(context(gemma)), 100)[0].top
    logprobs = dict(scored)
    difference = logprobs[token(gemma, "min")[0]] - logprobs[token(gemma, "max")[0]]
    assert found.value == pytest.approx(difference, abs=1e-3)
    assert sum(b.score for b in found.rows) == pytest.approx(found.total, abs=1e-6)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_derivatives_are_the_products_with_every_rows_gradient(kind: Any) -> None:
    """Relative to the largest, 1e-3: float32, and a row's derivative may be a small difference of large terms."""
    gemma = load("nano")
    lora.attach(gemma.model, lora.AdapterSpec(4, 8.0, 0.0, PROJECTIONS, kind=kind))
    gemma.model.eval()
    mx.random.seed(1)
    names = lora.adapter_parameters(gemma.model)
    parameters = {k: v if k.endswith(".m") else v + 0.02 * mx.random.normal(v.shape) for k, v in names.items()}
    direction = {k: mx.random.normal(v.shape) for k, v in names.items()}
    examples = [gemma.template.example(r["messages"]) for r in rows()[:12]]
    fast = token_derivatives(gemma, parameters, direction, examples)

    def product(example: Example) -> float:
        _, gradient = decision_gradient(gemma, parameters, example)
        return -sum(float((gradient[k] * direction[k]).sum().item()) for k in direction)

    slow = [product(e) for e in examples]
    ends = np.cumsum([e.targets for e in examples])
    assert np.abs([part.sum() for part in np.split(fast, ends[:-1])] - np.array(slow)).max() < 1e-3 * np.abs(slow).max()
    one = examples[1]
    alone = [
        product(Example(one.tokens, [i == t for i in range(len(one.tokens))])) for t in np.flatnonzero(one.supervised)
    ]
    assert np.abs(fast[ends[0] : ends[1]] - alone).max() < 1e-3 * np.abs(slow).max()


def test_scores_are_the_sum_over_snapshots_of_preconditioned_products(
    place: Path, gemma: Gemma, found: Influence
) -> None:
    """Taken again from the files, gradient by gradient, for three rows."""
    corpus = corpus_of_run(place, gemma.template)
    chosen = [0, 100, 199]
    targets = sum(example_at(corpus, r).targets for r in range(len(corpus)))
    own = dict(lora.adapter_parameters(gemma.model))
    pair = [continuation(context(gemma), token(gemma, word)) for word in ("min", "max")]
    metrics = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()][1:]
    rates = sum(m["rate"] * min(1, 1 / m["norm"]) for m in metrics)
    points = list(trajectory(place, run_recipe(place), targets))
    assert sum(p.weight for p in points) == pytest.approx(rates / targets, rel=1e-6)
    again = np.zeros(len(chosen))
    for point, path in zip(points, snapshots.found(place), strict=True):
        kept = snapshots.load(path)
        assert kept.moments is not None
        _, gradient = decision_gradient(gemma, kept.parameters, *pair)
        for i, r in enumerate(chosen):
            _, up = decision_gradient(gemma, kept.parameters, example_at(corpus, r))
            parts = [(gradient[k] * up[k] / (mx.sqrt(v) + 1e-8)).sum().item() for k, v in kept.moments.items()]
            again[i] += point.weight * sum(parts)  # the gradient of log p, which is less the loss
    set_parameters(gemma.model, own)
    scores = {b.row: b.score for b in found.rows}
    assert np.allclose(again, [scores[r] for r in chosen], rtol=1e-2, atol=1e-3 * found.rows[0].score)


def test_culpability_is_the_last_snapshots_part_over_the_root_of_the_gradient(
    place: Path, gemma: Gemma, found: Influence
) -> None:
    corpus, own = corpus_of_run(place, gemma.template), dict(lora.adapter_parameters(gemma.model))
    targets = sum(example_at(corpus, r).targets for r in range(len(corpus)))
    last = list(trajectory(place, run_recipe(place), targets))[-1]
    pair = [continuation(context(gemma), token(gemma, word)) for word in ("min", "max")]
    _, gradient = decision_gradient(gemma, last.parameters, *pair)
    for b in (found.rows[0], found.rows[100], found.rows[-1]):
        _, up = decision_gradient(gemma, last.parameters, example_at(corpus, b.row))
        scaled = {k: up[k] * p for k, p in last.preconditioner.items()}
        part = last.weight * sum((scaled[k] * gradient[k]).sum().item() for k in scaled)
        length = sum((scaled[k] * up[k]).sum().item() for k in scaled) ** 0.5
        assert b.culpability == pytest.approx(part / length**0.5, rel=1e-2, abs=1e-3 * found.rows[0].culpability)
    set_parameters(gemma.model, own)
    ranked = [b.culpability for b in found.rows]
    assert ranked == sorted(ranked, reverse=True)


def test_the_adapter_is_left_as_it_was_and_rows_can_be_chosen(place: Path, gemma: Gemma, found: Influence) -> None:
    before = {k: np.array(v) for k, v in lora.adapter_parameters(gemma.model).items()}
    few = influence(gemma, place, context(gemma), token(gemma, "min"), token(gemma, "max"), rows=[7, 150, 31])
    after = {k: np.array(v) for k, v in lora.adapter_parameters(gemma.model).items()}
    assert all((before[k] == after[k]).all() for k in before)
    scores = {b.row: b.score for b in found.rows}
    assert {b.row for b in few.rows} == {7, 150, 31}
    for b in few.rows:
        assert b.score == pytest.approx(scores[b.row], rel=1e-2, abs=1e-3 * found.rows[0].score)


def test_without_a_rival_the_difference_is_that_of_two(place: Path, gemma: Gemma, found: Influence) -> None:
    chosen = [b.row for b in found.rows[:3]]
    of = [influence(gemma, place, context(gemma), token(gemma, w), rows=chosen).rows for w in ("min", "max")]
    low, high = ({b.row: b.score for b in each} for each in of)
    for b in found.rows[:3]:
        assert low[b.row] - high[b.row] == pytest.approx(b.score, rel=1e-2)


def refusal(*args: Any) -> str:
    with pytest.raises(UserError) as e:
        influence(*args)
    line = str(e.value)
    assert "\n" not in line
    return line


def test_bad_input_is_one_line(place: Path, gemma: Gemma, tmp_path: Path) -> None:
    before, answer = context(gemma), token(gemma, "min")
    assert "the context is empty" in refusal(gemma, place, [], answer)
    assert "the answer is empty" in refusal(gemma, place, before, [])
    assert "token 3072 is not in the vocabulary" in refusal(gemma, place, before, [3072])
    assert "token -1 is not" in refusal(gemma, place, before, answer, [-1])
    assert "no finished run" in refusal(gemma, tmp_path, before, answer)
    short = replace(gemma, context=len(before))
    assert "shorten" in refusal(short, place, before, answer)
    assert "another adapter" in refusal(load("nano"), place, before, answer)


def test_a_run_without_snapshots_is_refused(tmp_path: Path, gemma: Gemma) -> None:
    place = train(resolved(tmp_path, "train.steps=1", "blame.snapshots=0", "data.limit=8"))
    assert not (place / "snapshots").exists()
    line = refusal(load(str(place)), place, context(gemma), token(gemma, "min"))
    assert "kept no snapshots" in line
    assert "blame.snapshots" in line


@pytest.mark.parametrize(
    ("overrides", "preconditioned"),
    [
        (("adapter.kind=dora",), True),
        (("train.lora_plus=4",), True),
        (("train.optimizer=sgd",), False),
        (("model.quantize=nf4",), True),
        (("model.quantize=affine4",), True),
    ],
    ids=str,
)
def test_other_adapters_optimisers_and_bases(
    overrides: tuple[str, ...], preconditioned: bool, tmp_path: Path, gemma: Gemma
) -> None:
    place = train(resolved(tmp_path, "train.steps=4", "data.limit=16", *overrides))
    found = influence(load(str(place)), place, context(gemma), token(gemma, "min"))
    assert len(found.rows) == 16
    assert np.isfinite([b.score for b in found.rows]).all()
    assert any(b.score for b in found.rows)
    assert found.preconditioned == preconditioned
