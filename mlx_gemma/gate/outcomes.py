"""calibration.jsonl: what specialist and base made of every calibration query, one a line.

Calibrating again with another alpha reads it, and so does the report: the models need not run again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from mlx_gemma.data.write import write_jsonl
from mlx_gemma.errors import UserError
from mlx_gemma.gate.coverage import Bools, Floats

FILE = "calibration.jsonl"


@dataclass(frozen=True)
class Outcome:
    """One query.

    Attributes:
        type: of the query, as its suite has it.
        group: what is no independent evidence: paraphrases, the twins of a pair, a task family.
        scores: of scores.py, by name; and what is compared only: calibrate.BASE_LOGPROB, SPECIALIST_LOGPROB.
    """

    id: str
    type: str
    suite: str
    group: str
    query: str
    scores: Mapping[str, float]
    specialist_bad: bool
    base_bad: bool
    specialist_verdicts: tuple[str, ...]
    base_verdicts: tuple[str, ...]


def write_outcomes(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Raises UserError: the disk refuses."""
    write_jsonl(folder / FILE, (asdict(outcome) for outcome in outcomes))


def read_outcomes(folder: Path) -> list[Outcome]:
    """The rows of a calibrated gate.

    Raises:
        UserError: there are none, or a line is damaged.
    """
    path = folder / FILE
    try:
        lines = path.read_text(encoding="utf8").rstrip("\n").split("\n")
    except (OSError, ValueError) as e:
        raise UserError("no outcomes to read", where=path, fix="calibrate with --suite") from e
    found = []
    for number, line in enumerate(lines, 1):
        try:
            read = json.loads(line)
            record = {f.name: read[f.name] for f in fields(Outcome)}
            lists = {k: tuple(record[k]) for k in ("specialist_verdicts", "base_verdicts")}
            scores = {name: float(value) for name, value in record["scores"].items()}
            found.append(Outcome(**record | lists | {"scores": scores}))
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise UserError("not a calibration query", where=f"{path}:{number}", fix="calibrate with --suite") from e
    return found


def score_of(outcomes: Sequence[Outcome], name: str) -> Floats:
    """One score of all, (queries,)."""
    return np.array([o.scores[name] for o in outcomes], np.float64)


def bad_of(outcomes: Sequence[Outcome]) -> Bools:
    """Whether the specialist's output was bad, (queries,)."""
    return np.array([o.specialist_bad for o in outcomes], bool)
