"""From suites to gate.json with nano and an adapter; recalibration, report, command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gate_outcomes import outcomes
from gate_stand_ins import PROMPTS, FakeEncoder, small_gate
from tiny_gemma4 import random_adapter

from mlx_gemma.cli import main
from mlx_gemma.errors import UserError
from mlx_gemma.gate import calibrate as calibration
from mlx_gemma.gate import route as routing
from mlx_gemma.gate.calibrate import BASE_LOGPROB, SPECIALIST_LOGPROB, calibrate, recalibrate
from mlx_gemma.gate.calibrated import FILE, Calibrated, read_calibrated, write_calibrated
from mlx_gemma.gate.outcomes import read_outcomes, write_outcomes
from mlx_gemma.gate.report import write_report
from mlx_gemma.gate.route import Gate
from mlx_gemma.gate.tables import routed, steps

LEVELS: dict[str, Any] = {"alpha": 0.1, "delta": 0.1, "seed": 0}
MODEL_TOKENS = 6


@pytest.fixture(autouse=True)
def fake_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "open_encoder", lambda spec, folder: FakeEncoder())


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Six queries, by which any answer is good or any bad; two of one family, one with NUL in it, one a prompt."""
    queries = [
        PROMPTS[0],
        "Sort the words.",
        "Sort words now.",
        "Who painted Guernica?",
        "Count lines, please.",
        "Sort \0 words.",
    ]
    lines = [{"suite": "small", "max_tokens": MODEL_TOKENS, "bad": ["wrong"]}]
    for i, query in enumerate(queries):
        rule = {"rule": "lacks" if i % 2 else "contains", "any": ["no such text"]}
        family = {"family": "sort"} if i in (1, 2) else {}
        lines.append({"id": str(i), "type": "t", "prompt": query, "expect": [rule], **family})
    file = tmp_path / "small.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf8")
    return file


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    random_adapter("nano", tmp_path / "run", size=0.3)
    return small_gate(tmp_path / "run" / "gate", run="..")


def fitted(folder: Path, found: Any, **levels: Any) -> Calibrated:
    """A gate calibrated on made-up outcomes."""
    digests = Gate(folder, routing.open_index(folder), None).index.digests
    result = calibration._fitted(folder, found, [], digests, **(LEVELS | levels))
    return result.calibrated


def test_both_models_answer_and_are_counted(gate: Path, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, int, int]] = []
    found = calibrate(gate, [suite], **LEVELS, progress=lambda *now: said.append(now))
    assert (found.unscored, found.trained) == (1, 1)
    assert [o.specialist_bad for o in found.outcomes] == [True, False, True, False, True]
    assert ["wrong" in o.specialist_verdicts for o in found.outcomes] == [True, False, True, False, True]
    assert [o.group for o in found.outcomes] == ["small 0", "small sort", "small sort", "small 3", "small 4"]
    first = found.outcomes[0].scores
    assert first["nearest"] == pytest.approx(1, abs=1e-6)
    assert first[BASE_LOGPROB] < 0
    assert first[BASE_LOGPROB] != first[SPECIALIST_LOGPROB]
    assert said[-1] == ("specialist, small", 6, 6)
    assert read_outcomes(gate) == list(found.outcomes)
    assert read_calibrated(gate) == found.calibrated
    assert found.calibrated.accept is None
    assert "even with none bad it takes 22" in found.calibrated.reason
    decision = Gate.load(gate, encoder=FakeEncoder()).route(PROMPTS[0])
    assert decision.route == "base"
    # The answers are kept: nothing is decoded again.
    monkeypatch.setattr("mlx_gemma.evaluate.run.generate_batch", None)
    again = calibrate(gate, [suite], **LEVELS | {"seed": 1})
    assert again.outcomes == found.outcomes


def test_another_alpha_without_the_models(tmp_path: Path) -> None:
    folder = small_gate(tmp_path / "g")
    found = outcomes(1, 300, 2)
    strict = fitted(folder, found)
    loose = recalibrate(folder, alpha=0.3, delta=0.1, seed=0).calibrated
    assert loose == read_calibrated(folder)
    assert strict.accept is not None
    assert loose.accept is not None
    assert loose.accept < strict.accept
    assert recalibrate(folder, **LEVELS).calibrated == strict


def test_a_gate_routes_by_what_was_found(tmp_path: Path) -> None:
    folder = small_gate(tmp_path / "g")
    calibrated = fitted(folder, outcomes(1, 300, 2))
    chances = [calibrated.confidence(s) for s in np.linspace(0, 1, 21)]
    assert chances == sorted(chances)
    assert chances[-1] > 0.9
    assert chances[0] < 0.1
    assert calibrated.accept is not None
    assert [calibrated.band(s) for s in (1.0, calibrated.accept, 0.0, np.nan)] == ["in", "in", "out", "out"]
    assert Gate.load(folder, encoder=FakeEncoder()).route(PROMPTS[0]).score_name == "mean_k"


def test_tables_add_up(tmp_path: Path) -> None:
    rows = [replace(o, base_bad=i % 3 == 0, suite="ab"[i % 2]) for i, o in enumerate(outcomes(1, 600, 1))]
    found = calibration.fit(rows, **LEVELS)
    every, *parts = routed(rows, found, found.accept.threshold)
    assert every.sent.total == int((~found.first).sum())
    suites = [p for p in parts if ": " not in p.name]
    for rate in ("sent", "specialist", "base", "gate", "specialist_alone", "base_alone", "oracle"):
        assert sum(getattr(p, rate).count for p in suites) == getattr(every, rate).count
        assert sum(getattr(p, rate).total for p in suites) == getattr(every, rate).total
    assert every.gate.count == every.specialist.count + every.base.count
    assert every.oracle.count <= min(every.gate.count, every.base_alone.count, every.specialist_alone.count)
    walk = steps(rows, found)
    assert [s.threshold for s in walk if s.accepted] == [found.accept.threshold]
    assert walk[0].gate == every.specialist_alone
    assert [s.sent.count for s in walk] == sorted((s.sent.count for s in walk), reverse=True)
    assert routed(rows, found, None)[0].gate == every.base_alone


def test_report(tmp_path: Path, show: Callable[..., Any]) -> None:
    folder = small_gate(tmp_path / "g")
    rows = [
        replace(o, query="<b>bold</b> \x1b[31m", base_verdicts=("wrong",), base_bad=True) for o in outcomes(1, 300, 2)
    ]
    calibrated = fitted(folder, rows)
    files = write_report(folder)
    assert [f.name for f in files] == ["report.html", "risk_coverage.png", "reliability.png", "scores.png"]
    before = [f.read_bytes() for f in files]
    assert write_report(folder) == files
    assert [f.read_bytes() for f in files] == before
    document = files[0].read_text(encoding="utf8")
    assert "<b>bold" not in document
    view = show(document)
    assert view.locator("svg.figure").count() == 3
    assert view.locator("tr.chosen").count() == 3  # a threshold, an alpha, a score
    shown = view.locator("#slide output")
    assert shown.inner_text().startswith(f"{calibrated.accept:.4f}: to the specialist")
    view.locator("#at").press("Home")
    assert "to the specialist 400/400" in shown.inner_text()
    assert view.locator("#thresholds tr.shown").count() == 1
    assert view.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == view.evaluate(
        "document.querySelectorAll('[id]').length"
    )


def test_what_is_stale_or_damaged_is_refused(tmp_path: Path, suite: Path) -> None:
    folder = small_gate(tmp_path / "g")
    for call in (lambda: recalibrate(folder, **LEVELS), lambda: write_report(folder)):
        with pytest.raises(UserError, match=r"never calibrated|no outcomes"):
            call()
    with pytest.raises(UserError, match="the run that this gate was built from is not there"):
        calibrate(folder, [suite], **LEVELS)
    with pytest.raises(UserError, match="two suites named small"):
        calibrate(folder, [suite, suite], **LEVELS)
    calibrated = fitted(folder, outcomes(1, 300, 2))
    write_calibrated(folder, replace(calibrated, digests={**calibrated.digests, "adapter": "another"}))
    for call in (lambda: recalibrate(folder, **LEVELS), lambda: write_report(folder), lambda: Gate.load(folder)):
        with pytest.raises(UserError, match="a stale gate: its adapter has digest"):
            call()
    write_calibrated(folder, calibrated)
    write_outcomes(folder, outcomes(2, 300, 2))
    with pytest.raises(UserError, match="do not give the threshold"):
        write_report(folder)
    good = (folder / FILE).read_text(encoding="utf8")
    for damage in ("", "[]", good[:-9], good.replace('"mean_k"', '"luck"'), good.replace('"format": 1', '"format": 2')):
        (folder / FILE).write_text(damage, encoding="utf8")
        with pytest.raises(UserError, match=r"gate\.json"):
            read_calibrated(folder)
    (folder / "calibration.jsonl").write_text("{}\n", encoding="utf8")
    with pytest.raises(UserError, match=r"calibration\.jsonl:1"):
        read_outcomes(folder)


def test_command_line(
    gate: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")

    def run(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mlx-gemma", "gate", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    status, out, err = run("calibrate", gate, "--suite", suite)
    assert (status, err) == (0, "")
    assert "1 queries cannot be scored" in out
    assert "1 queries are training prompts" in out
    assert "everything goes to the base" in out
    assert "base_logprob" in out
    status, out, _ = run("calibrate", gate, "--alpha", "0.5", "--delta", "0.4")
    assert status == 0
    status, out, _ = run("report", gate, "--out", tmp_path / "new")
    assert status == 0
    assert out.split() == [
        str(tmp_path / "new" / f) for f in ("report.html", "risk_coverage.png", "reliability.png", "scores.png")
    ]
    assert all(Path(f).is_file() for f in out.split())
    for args, line in (
        (("report", gate, "--out", tmp_path / "new"), "exists"),
        (("calibrate", gate, "--alpha", "1"), "alpha"),
        (("calibrate", tmp_path / "none"), "no gate here"),
        (("calibrate", gate, "--suite", tmp_path / "none.jsonl"), "none.jsonl"),
    ):
        status, _, err = run(*args)
        assert status == 2, args
        assert line in err
        assert err.count("\n") == 1
