"""Calibration outcomes made up, of known chances."""

from __future__ import annotations

import math

import numpy as np

from mlx_gemma.gate.outcomes import Outcome
from mlx_gemma.gate.scores import NAMES


def outcomes(seed: int, groups: int, size: int, *, rate: float | None = None) -> list[Outcome]:
    """Groups whose queries are alike: one score and one fate; only mean_k knows of it.

    Args:
        rate: of bad outputs, at any score; None: it falls as the score rises.
    """
    rng = np.random.default_rng(seed)
    found = []
    for group in range(groups):
        s = float(rng.random())
        bad = bool(rng.random() < (1 / (1 + math.exp((s - 0.5) * 10)) if rate is None else rate))
        for member in range(size):
            found.append(
                Outcome(
                    id=f"{group}-{member}",
                    type="abc"[group % 3],
                    suite="s",
                    group=str(group),
                    query="?",
                    scores={name: s if name == "mean_k" else float(rng.random()) for name in NAMES},
                    specialist_bad=bad,
                    base_bad=False,
                    specialist_verdicts=(),
                    base_verdicts=(),
                )
            )
    return found
