"""Calibration: specialist and base answer the calibration queries, and what came out sets the thresholds.

    calibrate(folder, suites, alpha=0.1, delta=0.1, seed=0)    runs both models; writes calibration.jsonl and gate.json
    recalibrate(folder, alpha=0.2, delta=0.1, seed=0)          from the outcomes that are there

The answers are kept in the gate's folder `answers`, by the digests of model and suite: a calibration that was
interrupted goes on, and one with a suite more asks that suite alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.results import Row
from mlx_gemma.evaluate.sandbox import Wall
from mlx_gemma.gate.answers import Progress, answers, read_sources, uncertainty
from mlx_gemma.gate.calibrated import Calibrated, check_fresh, read_calibrated, write_calibrated
from mlx_gemma.gate.fit import Fit, fit
from mlx_gemma.gate.index import open_index
from mlx_gemma.gate.outcomes import Outcome, read_outcomes, write_outcomes
from mlx_gemma.gate.risk import check_levels
from mlx_gemma.gate.route import Gate
from mlx_gemma.gate.stale import check_run

BASE_LOGPROB, SPECIALIST_LOGPROB = "base_logprob", "specialist_logprob"  # compared only: they take the weights


@dataclass(frozen=True)
class Result:
    """A calibration.

    Attributes:
        fit: how it came about.
        calibrated: what gate.json holds.
        outcomes: in the order of the suites.
        unscored: queries that the gate cannot score; they are left out, as they go to the base at any threshold.
        trained: queries that are training prompts word by word: on these the specialist looks better than it is.
    """

    fit: Fit
    calibrated: Calibrated
    outcomes: Sequence[Outcome] = field(repr=False)
    unscored: int = 0
    trained: int = 0


def calibrate(
    folder: Path,
    files: Sequence[Path],
    *,
    alpha: float,
    delta: float,
    seed: int,
    wall: Wall | None = None,
    progress: Progress = lambda what, done, of: None,
) -> Result:
    """Run both models on the suites, greedily, and calibrate the gate; an earlier calibration is replaced.

    Args:
        files: suites, of different names. It is their mix that the bound is about.
        seed: of the split.
        wall: as in `evaluate`: whether it holds is to be proved before.

    Raises:
        UserError: no gate or one of another run, no run folder, a suite that cannot be read, too few queries, or code
            to run and no wall.

    Cost: two answers a query.
    """
    check_levels(alpha, delta)
    index, sources = open_index(folder), read_sources(files)
    check_run(index)
    gate = Gate(folder, index, None)
    queries = [item.prompt for source in sources for item in source.suite.items]
    measured = gate.measure(gate.embed(queries))
    base, specialist = answers(gate, sources, wall, progress)
    outcomes, trained = list[Outcome](), 0
    names = [source.name for source in sources for _ in source.suite.items]
    for at, (name, query, first, second) in enumerate(zip(names, queries, base, specialist, strict=True)):
        scores = {score: float(values[at]) for score, values in measured.scores.items()}
        if np.isnan(scores["nearest"]):
            continue
        trained += index.row(int(measured.rows[at, 0])).prompt == query
        scores |= {BASE_LOGPROB: uncertainty(first), SPECIALIST_LOGPROB: uncertainty(second)}
        outcomes.append(_outcome(name, query, scores, first, second))
    suites = [{"name": s.name, "digest": s.digest, "items": len(s.suite.items)} for s in sources]
    result = _fitted(folder, outcomes, suites, index.digests, alpha, delta, seed)
    return Result(result.fit, result.calibrated, outcomes, len(queries) - len(outcomes), trained)


def recalibrate(folder: Path, *, alpha: float, delta: float, seed: int) -> Result:
    """Other thresholds from the outcomes of the last calibration; no model runs.

    Raises:
        UserError: never calibrated, or stale since.
    """
    index, before, outcomes = open_index(folder), read_calibrated(folder), read_outcomes(folder)
    check_run(index)
    if before is None:
        raise UserError("never calibrated", where=folder, fix="calibrate with --suite")
    check_fresh(before, index.digests, folder)
    return _fitted(folder, outcomes, before.suites, index.digests, alpha, delta, seed)


def _fitted(
    folder: Path,
    outcomes: Sequence[Outcome],
    suites: Sequence[Mapping[str, Any]],
    digests: Mapping[str, str],
    alpha: float,
    delta: float,
    seed: int,
) -> Result:
    """Fit and write: the outcomes first, so that gate.json never stands beside those of another calibration."""
    found = fit(outcomes, alpha=alpha, delta=delta, seed=seed)
    calibrated = Calibrated(
        score=found.score,
        accept=found.accept.threshold,
        out=found.out.threshold,
        alpha=alpha,
        delta=delta,
        seed=seed,
        knots=found.knots,
        reason=found.reason,
        counts=found.counts,
        suites=tuple(suites),
        digests=dict(digests),
    )
    with run.disk_errors(folder):
        (folder / "gate.json").unlink(missing_ok=True)
    write_outcomes(folder, outcomes)
    write_calibrated(folder, calibrated)
    return Result(found, calibrated, outcomes)


def _outcome(suite: str, query: str, scores: Mapping[str, float], base: Row, specialist: Row) -> Outcome:
    return Outcome(
        id=base.id,
        type=base.type,
        suite=suite,
        group=f"{suite} {base.cluster}",
        query=query,
        scores=scores,
        specialist_bad=specialist.bad,
        base_bad=base.bad,
        specialist_verdicts=specialist.verdicts,
        base_verdicts=base.verdicts,
    )
