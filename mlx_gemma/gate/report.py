"""A calibrated gate's report: three pictures and a page.

write_report(folder, out) -> the files: report.html, risk_coverage.png, reliability.png, scores.png
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.gate.calibrated import check_fresh, read_calibrated
from mlx_gemma.gate.figures import figures, svg, write_png
from mlx_gemma.gate.fit import fit
from mlx_gemma.gate.index import open_index
from mlx_gemma.gate.outcomes import read_outcomes
from mlx_gemma.gate.page import page

FOLDER, PAGE = "report", "report.html"
LABELS = {
    "risk_coverage": "bad outputs against the share of queries sent to the specialist; the table above has the areas",
    "reliability": "how often the specialist's output is good, against the confidence",
    "scores": "histograms of the score, a suite each, good and bad outputs of the specialist",
}


def write_report(folder: Path, out: Path | None = None) -> list[Path]:
    """Write the report of a gate.

    Args:
        out: a new folder; the gate's `report` if absent, which is written anew.

    Raises:
        UserError: never calibrated, or stale since; `out` exists, or the disk refuses.

    Cost: about 5 s for 600 queries.
    """
    index, calibrated = open_index(folder), read_calibrated(folder)
    if calibrated is None:
        raise UserError("never calibrated", where=folder, fix="calibrate it first (mlx-gemma gate calibrate)")
    check_fresh(calibrated, index.digests, folder)
    outcomes = read_outcomes(folder)
    fitted = fit(outcomes, alpha=calibrated.alpha, delta=calibrated.delta, seed=calibrated.seed)
    if fitted.reason != calibrated.reason:
        fix = "calibrate again without --suite"
        raise UserError("these outcomes do not give the threshold of gate.json", where=folder, fix=fix)
    drawn = figures(outcomes, fitted, calibrated)
    drawings = {name: svg(figure, name, LABELS[name]) for name, figure in drawn.items()}
    text = page(index.made.name, outcomes, fitted, calibrated, drawings)
    with _folder(folder, out) as to:
        for name, figure in drawn.items():
            write_png(figure, to / f"{name}.png")
        run.write_text(to / PAGE, text)
    return [(out or folder / FOLDER) / name for name in (PAGE, *(f"{name}.png" for name in drawn))]


@contextmanager
def _folder(folder: Path, out: Path | None) -> Iterator[Path]:
    if out is not None:
        with run.whole_folder(out) as part:
            yield part
    else:
        with run.disk_errors(folder):
            (folder / FOLDER).mkdir(exist_ok=True)
            yield folder / FOLDER
