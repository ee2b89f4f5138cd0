"""What routing answers: where a query goes, by which numbers, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from mlx_gemma.gate.calibrated import Band, Calibrated

BASE = "base"  # the route that is no specialist


class Near(NamedTuple):
    """A row of the knowledge base near to a query; `similarity` is the cosine."""

    similarity: float
    prompt: str
    answer: str
    where: str


@dataclass(frozen=True)
class Decision:
    """Where a query goes.

    Attributes:
        route: the specialist's name, or "base".
        band: "in" goes to the specialist; "unsure" and "out" go to the base.
        score: NaN where the query cannot be scored.
        score_name: one of scores.NAMES.
        threshold: from this score on the specialist answers; None: it never does, or the gate is not calibrated.
        out_threshold: below it the specialist is known to be bad too often; None: not shown of any score.
        confidence: the chance that the specialist's output is not bad, 0 to 1; None where nothing is calibrated.
        nearest: rows, the nearest first.
        reason: one sentence.
        milliseconds: encode, search (with scores and nearest rows), all; in a batch, the mean of its queries.
        bands: of several specialists, each one's band.
    """

    route: str
    band: Band
    score: float
    score_name: str
    threshold: float | None
    out_threshold: float | None
    confidence: float | None
    nearest: tuple[Near, ...]
    reason: str
    milliseconds: Mapping[str, float]
    bands: Mapping[str, Band] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON values; a score that is NaN is null, and answers are left out."""
        found = asdict(self)
        found["score"] = None if math.isnan(self.score) else self.score
        found["nearest"] = [{"similarity": n.similarity, "prompt": n.prompt, "where": n.where} for n in self.nearest]
        return found


def decide(
    specialist: str,
    calibrated: Calibrated | None,
    scores: Mapping[str, float],
    nearest: tuple[Near, ...],
    milliseconds: Mapping[str, float],
    fault: str | None,
    note: str,
) -> Decision:
    """One gate's decision.

    Args:
        fault: why the query is not scored.
        note: what a reader of the score should know, or "".
    """
    name = calibrated.score if calibrated is not None else "nearest"
    score = float(scores[name])
    band = calibrated.band(score) if calibrated is not None else "unsure"
    if fault is not None:
        band = "out"
    known = calibrated is not None and fault is None
    return Decision(
        route=specialist if band == "in" else BASE,
        band=band,
        score=score,
        score_name=name,
        threshold=calibrated.accept if calibrated is not None else None,
        out_threshold=calibrated.out if calibrated is not None else None,
        confidence=calibrated.confidence(score) if calibrated is not None and known else None,
        nearest=nearest,
        reason=_why(calibrated, band, score, fault) + (f"; {note}" if note else ""),
        milliseconds=milliseconds,
    )


def _why(calibrated: Calibrated | None, band: Band, score: float, fault: str | None) -> str:
    if fault is not None:
        return fault
    if calibrated is None:
        return "the gate is not calibrated, so every query goes to the base"
    if calibrated.accept is None and band == "unsure":
        return f"every query goes to the base: {calibrated.reason}"
    said = f"{calibrated.score} {score:.3f}"
    if band == "in":
        return f"{said} is at or above the threshold {calibrated.accept:.3f}"
    if band == "out":
        return (
            f"{said} is below {calibrated.out:.3f}, where the specialist is bad more often than {calibrated.alpha:.0%}"
        )
    return f"{said} is below the threshold {calibrated.accept:.3f}, so that the specialist may be bad too often"
