"""Routing: bands, bad input, staleness, several specialists, and what it imports."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gate_stand_ins import PROMPTS, FakeEncoder, calibrate_as, small_gate

from mlx_gemma.errors import UserError
from mlx_gemma.gate.route import MAX_CHARACTERS, Gate
from mlx_gemma.gate.router import Router

LIKE = "Write a function sort_words(words) that sorts the words, please."
UNLIKE = "¿Quién pintó el Guernica?"


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    folder = small_gate(tmp_path / "g")
    calibrate_as(folder)
    return Gate.load(folder, encoder=FakeEncoder())


def test_bands(gate: Gate) -> None:
    inside = gate.route(LIKE)
    assert (inside.route, inside.band, inside.score_name, inside.threshold) == ("python", "in", "nearest", 0.7)
    assert inside.nearest[0].prompt == PROMPTS[0]
    assert (inside.nearest[0].answer, inside.nearest[0].where) == ("answer 0", "rows.jsonl:1")
    assert inside.score == inside.nearest[0].similarity >= 0.7
    assert [n.similarity for n in inside.nearest] == sorted((n.similarity for n in inside.nearest), reverse=True)
    assert inside.confidence == pytest.approx(0.1 + 0.8 * inside.score)
    assert "at or above the threshold 0.700" in inside.reason
    out = gate.route(UNLIKE)
    assert (out.route, out.band) == ("base", "out")
    assert out.score < 0.3
    between = gate.route("Which function of the words is the most useful in a sentence?")
    assert (between.route, between.band) == ("base", "unsure")
    assert 0.3 <= between.score < 0.7
    assert set(inside.milliseconds) == {"encode", "search", "all"}


def test_the_threshold_itself_is_in(tmp_path: Path) -> None:
    folder = small_gate(tmp_path / "g")
    score = Gate.load(folder, encoder=FakeEncoder()).route(LIKE).score
    for accept, route in ((score, "python"), (math.nextafter(score, 2), "base")):
        calibrate_as(folder, accept=accept)
        assert Gate.load(folder, encoder=FakeEncoder()).route(LIKE).route == route


def test_before_calibration_and_without_a_bound_all_goes_to_the_base(tmp_path: Path) -> None:
    folder = small_gate(tmp_path / "g")
    first = Gate.load(folder, encoder=FakeEncoder()).route(PROMPTS[0])
    assert (first.route, first.band, first.threshold, first.confidence) == ("base", "unsure", None, None)
    assert "not calibrated" in first.reason
    calibrate_as(folder, accept=None, out=None)
    second = Gate.load(folder, encoder=FakeEncoder()).route(PROMPTS[0])
    assert (second.route, second.band) == ("base", "unsure")
    assert "made up" in second.reason  # calibration's own reason


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "empty"),
        (" \n\t\u2003", "empty"),
        ("x" * 100_000, "100,000 characters"),
        ("\0\0\0", "no text"),
        (b"\xff\xfe\x00rubbish\x80".decode("utf8", "surrogateescape"), "no text"),
        ("\ud800 sort words", "no text"),
        ("??", "knows no part"),  # shorter than one piece: its vector is zeros
    ],
)
def test_what_cannot_be_scored_goes_to_the_base(gate: Gate, query: str, says: str) -> None:
    found = gate.route(query)
    assert (found.route, found.band, found.confidence, found.nearest) == ("base", "out", None, ())
    assert math.isnan(found.score)
    assert says in found.reason
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["score"] is None


def test_other_languages_and_long_queries_are_scored(gate: Gate) -> None:
    for query in ("写一个反转字符串的函数。", "اكتب دالة تعكس سلسلة", "Напиши функцию", "🦊🦊🦊 fox", UNLIKE):
        assert np.isfinite(gate.route(query).score)
    long = gate.route("sort words " * 100)
    assert "reads the query's first 100 tokens alone" in long.reason
    assert "alone" not in gate.route(LIKE).reason
    assert np.isfinite(gate.route("x" * MAX_CHARACTERS).score)


def test_a_batch_is_its_queries_one_by_one(gate: Gate) -> None:
    queries = [LIKE, "", UNLIKE, "x" * 100_000, PROMPTS[5]]
    together, alone = gate.route_batch(queries, k=2), [gate.route(query, k=2) for query in queries]
    assert [d.route for d in together] == [d.route for d in alone]
    assert [d.reason for d in together] == [d.reason for d in alone]
    np.testing.assert_allclose([d.score for d in together], [d.score for d in alone], atol=1e-6)
    assert [len(d.nearest) for d in together] == [2, 0, 2, 0, 2]
    assert gate.route_batch([]) == []


def test_small_and_repetitive_knowledge_bases(tmp_path: Path) -> None:
    for i, (prompts, gap) in enumerate(([[PROMPTS[0]], 0.0], [[PROMPTS[0]] * 3, 0.0], [list(PROMPTS[:2]), None])):
        folder = small_gate(tmp_path / str(i), prompts)
        for score in ("nearest", "mean_k", "gap", "density", "pca"):
            calibrate_as(folder, score=score, accept=-1e9, out=None, knots=((0.0, 0.5),))
            found = Gate.load(folder, encoder=FakeEncoder()).route(LIKE, k=20)
            assert found.route == "python"
            assert np.isfinite(found.score)
            assert len(found.nearest) == len(prompts)
            if score == "gap" and gap is not None:
                assert found.score == pytest.approx(gap, abs=1e-6)


@pytest.mark.parametrize("name", ["data", "encoder", "adapter", "base", "template"])
def test_a_gate_calibrated_as_another_is_refused(tmp_path: Path, name: str) -> None:
    folder = small_gate(tmp_path / "g")
    same = {n: n for n in ("data", "adapter", "base", "template")} | {"encoder": "fake"}
    calibrate_as(folder, digests=same | {name: "another"})
    with pytest.raises(UserError, match=f"stale gate: its {name}"):
        Gate.load(folder, encoder=FakeEncoder())


def test_a_run_that_is_another_by_now_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = small_gate(run / "gate", run="..")
    for name in ("adapters.safetensors", "adapter_config.json"):
        (run / name).write_text("x")
    manifest = {"data": {"train": "data"}, "base": {"digest": "base"}, "template": "template"}
    (run / "manifest.json").write_text(json.dumps(manifest | {"template": "another"}))
    with pytest.raises(UserError, match="the run's adapter has digest"):
        Gate.load(folder, encoder=FakeEncoder())
    moved = shutil.move(folder, tmp_path / "alone")  # without its run a gate still routes
    assert Gate.load(moved, encoder=FakeEncoder()).route(LIKE).route == "base"


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    folder = small_gate(tmp_path / "g")
    with pytest.raises(UserError, match="256 dimensions, not with fake, 32"):
        Gate.load(folder, encoder=FakeEncoder(dimension=32))
    with pytest.raises(UserError, match="stale gate"):
        Gate.load(folder, encoder=FakeEncoder(digest="of other weights"))


def test_several_specialists(tmp_path: Path) -> None:
    letters = [f"Draft a letter to the {who} about the {what}." for who in ("bank", "landlord") for what in "abc"]
    python, mail = small_gate(tmp_path / "p"), small_gate(tmp_path / "m", letters, name="letters")
    encoder = FakeEncoder()

    def router() -> Router:
        return Router.of([Gate.load(folder, encoder=encoder) for folder in (python, mail)])

    for folder in (python, mail):
        calibrate_as(folder)
    encoder.calls = 0
    asked = [LIKE, "Draft a letter to the bank about the fee.", UNLIKE, ""]
    assert [d.route for d in router().route_batch(asked)] == ["python", "letters", "base", "base"]
    assert encoder.calls == 1
    assert router().route(LIKE).bands == {"python": "in", "letters": router().gates[1].route(LIKE).band}
    # Both accept everything: the more confident one answers, whatever the scores are.
    calibrate_as(python, accept=-1.0, knots=((0.0, 0.6),))
    calibrate_as(mail, accept=-1.0, knots=((0.0, 0.7),))
    assert {d.route for d in router().route_batch(asked[:3])} == {"letters"}
    with pytest.raises(UserError, match="two gates of python"):
        Router.load([python, python])
    with pytest.raises(UserError, match="no gate"):
        Router.load([])


def test_routing_imports_no_model_library(tmp_path: Path) -> None:
    folder = small_gate(tmp_path / "g")
    code = (
        "import sys; from mlx_gemma.gate.router import Router; from mlx_gemma.gate.build import build; "
        "from mlx_gemma.gate.route import Gate; "
        f"gate = Gate.load({str(folder)!r}); "
        "print([m for m in ('torch', 'mlx.core', 'transformers', 'sentence_transformers', 'model2vec', 'usearch') "
        "if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"


def test_an_encoder_is_loaded_where_a_query_needs_it(gate: Gate) -> None:
    unopened = Gate(gate.folder, gate.index, gate.calibrated)  # its encoder is nowhere
    assert unopened.route("").route == "base"
    assert [d.route for d in unopened.route_batch(["", "\0"])] == ["base", "base"]
    with pytest.raises(UserError, match="no encoder"):
        unopened.route(LIKE)
