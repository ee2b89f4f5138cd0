"""What some answers come to: rates, confidence against correctness, and two models side by side.

    columns(rows)                what is counted apart: greedy and sampled, and the suite's own division
    counts(rows)                 {verdict: Rate}, "bad" first
    types(rows)                  one rate of bad answers a type of query, descriptive under 20 items
    confidences(rows)            {"mean token": Calibration, "least certain token": Calibration}
    compared(first, second)      {(column, verdict): Comparison}, Holm-corrected

Answers of one cluster are no independent evidence: comparisons and calibration resample clusters, Wilson intervals of
rates take each answer for one of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.calibration import Calibration, calibrate
from mlx_gemma.evaluate.paired import Comparison, compare, holm
from mlx_gemma.evaluate.perplexity import Perplexity
from mlx_gemma.evaluate.results import Row
from mlx_gemma.evaluate.stats import Cell, Rate, cells
from mlx_gemma.evaluate.suite import VERDICTS

HIGHER_IS_BETTER = ("pushback",)


@dataclass(frozen=True)
class Side:
    """One model's answers to a suite, and what it was (`folder.settings`)."""

    name: str
    rows: list[Row]
    settings: Mapping[str, Any]
    perplexity: Perplexity | None = None


@dataclass(frozen=True)
class Column:
    """Answers that are counted together."""

    name: str
    rows: tuple[Row, ...]


def columns(rows: Sequence[Row]) -> list[Column]:
    """Greedy before sampled, within these by the suite's division (`columns` in its header), as they come."""
    found: dict[str, list[Row]] = {}
    several = len({row.mode for row in rows}) > 1
    for row in sorted(rows, key=lambda r: r.mode != "greedy"):
        mode = "greedy" if row.mode == "greedy" else f"sampled at {row.temperature:g}"
        name = ", ".join(part for part in (row.column, mode if several or not row.column else "") if part)
        found.setdefault(name, []).append(row)
    return [Column(name, tuple(of)) for name, of in found.items()]


def counts(rows: Sequence[Row], verdicts: Iterable[str] | None = None) -> dict[str, Rate]:
    """Rates of bad answers and of every verdict that holds somewhere, or of those given."""
    wanted = held(rows) if verdicts is None else tuple(verdicts)
    return {name: Rate(sum(outcomes(rows, name)), len(rows)) for name in ("bad", *wanted)}


def held(rows: Iterable[Row]) -> tuple[str, ...]:
    """The verdicts that hold for any of the rows, in their usual order."""
    seen = {verdict for row in rows for verdict in row.verdicts}
    return tuple(v for v in VERDICTS if v in seen)


def outcomes(rows: Sequence[Row], verdict: str) -> list[bool]:
    return [row.bad if verdict == "bad" else verdict in row.verdicts for row in rows]


def types(rows: Sequence[Row]) -> list[Cell]:
    """Bad answers by type of query, the worst first."""
    found = cells([row.type or "(no type)" for row in rows], [row.bad for row in rows])
    return sorted(found, key=lambda cell: -cell.rate.value)


def confidences(rows: Sequence[Row]) -> dict[str, Calibration]:
    """The model's own confidence in its answers against whether they are good.

    The first is exp of the mean token log-probability, the second the probability of the least certain token: where
    the answer was decided. Neither was made to be the probability of a good answer; this says how far they are from it.
    """
    good, clusters = [not row.bad for row in rows], [row.cluster for row in rows]
    mean = [min(1.0, math.exp(row.logprob)) for row in rows]
    least = [min(1.0, row.decision) for row in rows]
    return {
        "mean token": calibrate(mean, good, clusters=clusters),
        "least certain token": calibrate(least, good, clusters=clusters),
    }


def compared(first: Sequence[Row], second: Sequence[Row]) -> dict[tuple[str, str], Comparison]:
    """Two models' answers to the same items, by column: bad answers and each verdict that holds for one of them.

    Bad answers are the question that the suite was made for: they are corrected for the number of columns alone, the
    verdicts, which say in which way, for how many of them there are.

    Raises:
        UserError: they answered other items, or one of them not all.
    """
    if [r.key for r in first] != [r.key for r in second] or {r.suite for r in first} != {r.suite for r in second}:
        raise UserError("these are answers to other items", fix="evaluate both on the same suite and settings")
    found = {}
    for a, b in zip(columns(first), columns(second), strict=True):
        clusters = [row.cluster for row in a.rows]
        for verdict in ("bad", *held([*a.rows, *b.rows])):
            found[a.name, verdict] = compare(
                outcomes(a.rows, verdict),
                outcomes(b.rows, verdict),
                clusters=clusters,
                better="higher" if verdict in HIGHER_IS_BETTER else "lower",
            )
    primary = {key: c for key, c in found.items() if key[1] == "bad"}
    corrected = holm(primary) | holm({key: c for key, c in found.items() if key not in primary})
    return {key: corrected[key] for key in found}
