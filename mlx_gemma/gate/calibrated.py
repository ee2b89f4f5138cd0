"""gate.json: what calibration found, and how routing uses it.

    read_calibrated(folder) -> Calibrated or None     write_calibrated(folder, calibrated)
    calibrated.band(score) -> "in" | "unsure" | "out"     calibrated.confidence(score) -> chance of no bad output

`digests` are the index's own (data, encoder, adapter, base, template), as they were when the outcomes were measured: a
gate whose index has others is stale (`check_fresh`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.gate.scores import NAMES

FILE, FORMAT = "gate.json", 1
CALIBRATE = "calibrate it again (mlx-gemma gate calibrate)"

Band = Literal["in", "unsure", "out"]


@dataclass(frozen=True)
class Calibrated:
    """A calibrated gate.

    Attributes:
        score: name of the score that routes (scores.py).
        accept: from this score on a query goes to the specialist; None: none does.
        out: below this score the specialist's outputs are shown to be bad more often than `alpha`; None: not shown.
        alpha, delta: of the queries sent to the specialist, at most the share alpha is bad, with confidence 1 - delta.
        seed: of the split of the queries.
        knots: scores and the chance of an output that is not bad, ascending, between which it is interpolated.
        reason: one sentence: what was shown, or why nothing was.
        counts: queries, groups, tested, accepted, bad among these, and their exact upper bound.
        suites: file name, digest and items of each.
        digests: of what was calibrated, by name.
    """

    score: str
    accept: float | None
    out: float | None
    alpha: float
    delta: float
    seed: int
    knots: tuple[tuple[float, float], ...]
    reason: str
    counts: Mapping[str, float]
    suites: tuple[Mapping[str, Any], ...]
    digests: Mapping[str, str]

    def band(self, score: float) -> Band:
        """ "in" goes to the specialist, the others to the base; a score that is no number is "out"."""
        if self.accept is not None and score >= self.accept:
            return "in"
        if np.isnan(score) or (self.out is not None and score < self.out):
            return "out"
        return "unsure"

    def confidence(self, score: float) -> float:
        """Chance that the specialist's output is not bad, by isotonic regression on the calibration queries."""
        at, chance = zip(*self.knots, strict=True)
        return float(np.interp(score, at, chance))


def check_fresh(calibrated: Calibrated, digests: Mapping[str, str], folder: Path) -> None:
    """Raises UserError: the gate was calibrated with other data, encoder, adapter, base or template; says which."""
    for name in sorted({*calibrated.digests, *digests}):
        was, now = calibrated.digests.get(name), digests.get(name)
        if was != now:
            raise UserError(
                f"a stale gate: its {name} has digest {str(now)[:12]}, calibrated was {str(was)[:12]}",
                where=folder,
                fix=CALIBRATE,
            )


def write_calibrated(folder: Path, calibrated: Calibrated) -> None:
    """Raises UserError: the disk refuses."""
    with run.disk_errors(folder):
        run.write_json(folder / FILE, {"format": FORMAT, **asdict(calibrated)})


def read_calibrated(folder: Path) -> Calibrated | None:
    """None: never calibrated.

    Raises:
        UserError: gate.json is damaged, or of another version.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise UserError(f"unreadable: {e}", where=path, fix=CALIBRATE) from e
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError("not a gate.json of this version", where=path, fix=CALIBRATE)
    try:
        calibrated = Calibrated(**{f.name: found[f.name] for f in fields(Calibrated)})
        knots = tuple((float(at), float(chance)) for at, chance in calibrated.knots)
        numbers = [n for n in (calibrated.accept, calibrated.out) if n is not None]
        whole = calibrated.score in NAMES and knots and all(isinstance(n, int | float) for n in numbers)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise UserError("a damaged gate.json", where=path, fix=CALIBRATE)
    return Calibrated(**{**vars(calibrated), "knots": knots, "suites": tuple(calibrated.suites)})
