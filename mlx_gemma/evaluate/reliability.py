"""The reliability diagram: accuracy against confidence, as PNG or SVG.

Points on the diagonal are calibrated, below it overconfident. Each carries its Wilson 95 % interval, so that a bin of
three answers is not read as a finding; the bars beneath count the answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_gemma import run
from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#1f4e8c", "#c8501e", "#3c7d3c", "#7a4a9c", "#666666")


def reliability_figure(calibrations: Mapping[str, Calibration]) -> Figure:
    """One series a name, over its bins of equal width; at most five names, or they cannot be told apart.

    Raises:
        UserError: none, or more than five.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not 0 < len(calibrations) <= len(COLOURS):
        raise UserError(f"{len(calibrations)} models in one reliability diagram", fix=f"show 1 to {len(COLOURS)}")
    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    top, under = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    top.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="calibrated")
    for number, ((name, calibration), colour) in enumerate(zip(calibrations.items(), COLOURS, strict=False)):
        bins = calibration.equal_width.bins
        error = calibration.equal_width
        x, y = [b.confidence for b in bins], [b.correct.value for b in bins]
        intervals = [b.correct.interval for b in bins]
        reach = [
            [v - low for v, (low, _) in zip(y, intervals, strict=True)],
            [high - v for v, (_, high) in zip(y, intervals, strict=True)],
        ]
        label = f"{name}: error {error.value:.3f} ({error.interval[0]:.3f}-{error.interval[1]:.3f})"
        top.errorbar(
            x,
            y,
            yerr=reach,
            color=colour,
            marker="o",
            markersize=5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
            label=label,
        )
        width = [(b.high - b.low) / len(calibrations) for b in bins]
        left = [b.low + number * w for b, w in zip(bins, width, strict=True)]
        under.bar(left, [b.correct.total for b in bins], width=width, align="edge", color=colour, edgecolor="white")
    top.set(ylabel="correct", xlim=(0, 1), ylim=(-0.02, 1.02))
    top.grid(alpha=0.3)
    figure.legend(loc="outside upper left", fontsize="small", frameon=False)
    under.set(xlabel="confidence", ylabel="answers")
    under.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    return figure


def plot_reliability(calibrations: Mapping[str, Calibration], path: Path) -> None:
    """Write the figure whole, as its suffix says; the same data give the same bytes.

    Raises:
        UserError: a suffix that is neither .png nor .svg, or as reliability_figure.
    """
    import matplotlib

    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise UserError("a picture is PNG or SVG", where=path, fix="name it .png or .svg")
    figure = reliability_figure(calibrations)
    with matplotlib.rc_context({"svg.hashsalt": "mlx-gemma"}), run.whole(path) as part:
        figure.savefig(part, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
