"""A calibration in pictures: risk against coverage, reliability of the confidence, scores by suite.

Drawn once: written as PNG, and put into the page as SVG that needs no style sheet of its own (`svg`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlx_gemma import run
from mlx_gemma.evaluate.calibration import calibrate
from mlx_gemma.evaluate.reliability import reliability_figure
from mlx_gemma.gate.calibrated import Calibrated
from mlx_gemma.gate.fit import Fit
from mlx_gemma.gate.outcomes import Outcome, bad_of, score_of
from mlx_gemma.html_page import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1f4e8c", "#c8501e", "#3c7d3c", "#7a4a9c", "#b08a00", "#666666", "#a0a0a0")
GOOD, BAD = "#3d7ea6", "#d1495b"
BINS = 30


def figures(outcomes: Sequence[Outcome], fit: Fit, calibrated: Calibrated) -> dict[str, Figure]:
    """By name, which is the file's: risk_coverage, reliability, scores."""
    good = (~bad_of(outcomes)).tolist()
    confidence = calibrate(fit.crossed.tolist(), good, clusters=[o.group for o in outcomes])
    return {
        "risk_coverage": risk_coverage_figure(fit, calibrated.alpha),
        "reliability": reliability_figure({f"{fit.score}, each fifth by the others": confidence}),
        "scores": scores_figure(outcomes, fit),
    }


def risk_coverage_figure(fit: Fit, alpha: float) -> Figure:
    """Bad outputs of the specialist among the queries of the highest scores, on the part that tests."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    ranked = sorted(fit.compared.values(), key=lambda c: c.chose)
    for found, colour in zip(ranked, COLOURS, strict=False):
        chosen = found.name == fit.score
        axes.plot(
            found.curve.coverage,
            found.curve.risk,
            drawstyle="steps-post",
            color=colour,
            linewidth=2.4 if chosen else 1.1,
            linestyle="--" if found.name.endswith("_logprob") else "-",
            label=f"{found.name}: area {found.curve.area:.3f}",
            zorder=3 if chosen else 2,
        )
    axes.axhline(alpha, color=BAD, linewidth=1, label=f"alpha {alpha:g}")
    if fit.accept.threshold is not None:
        share = fit.accept.accepted / fit.accept.tested
        axes.axvline(share, color="#000000", linewidth=0.8, linestyle=":", label=f"sent: {share:.0%}")
    axes.set(xlabel="share of queries sent to the specialist", ylabel="bad among these", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", frameon=False)
    return figure


def scores_figure(outcomes: Sequence[Outcome], fit: Fit) -> Figure:
    """Where each suite's queries lie, good and bad outputs of the specialist stacked; and the thresholds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    suites = list(dict.fromkeys(o.suite for o in outcomes))
    values = score_of(outcomes, fit.score)
    edges = np.linspace(values.min(), max(values.max(), values.min() + 1e-6), BINS + 1)
    figure = Figure(figsize=(6.5, 0.9 + 1.1 * len(suites)), layout="constrained")
    rows: list[Axes] = figure.subplots(len(suites), 1, sharex=True, squeeze=False)[:, 0].tolist()
    for axes, suite in zip(rows, suites, strict=True):
        own = [o for o in outcomes if o.suite == suite]
        bad, at = bad_of(own), score_of(own, fit.score)
        axes.hist([at[~bad], at[bad]], edges.tolist(), stacked=True, color=[GOOD, BAD], label=["good", "bad"])
        axes.set_title(f"{suite}: {len(own)} queries, {int(bad.sum())} bad", loc="left", fontsize="small")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
        for limit, style in ((fit.accept.threshold, "-"), (fit.out.threshold, ":")):
            if limit is not None:
                axes.axvline(limit, color="#000000", linewidth=1, linestyle=style)
    rows[0].legend(fontsize="small", frameon=False)
    rows[-1].set_xlabel(f"{fit.score}; line: accepted from here on, dotted: out below")
    return figure


def write_png(figure: Figure, path: Path) -> None:
    """Written whole or not at all; the same data give the same bytes."""
    with run.whole(path) as part:
        figure.savefig(part, format="png", dpi=120)


def svg(figure: Figure, name: str, label: str) -> Html:
    """The figure as an element of a page whose policy allows no inline style: attributes, and letters as paths.

    Args:
        name: before every id, as a page holds several.
        label: what a screen reader says.
    """
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    drawn = out.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r' id="(?:figure|axes|patch|line2d|text|legend|matplotlib|xtick|ytick|LineC)[^"]*"', "", drawn)
    drawn = re.sub(r' style="([^"]*)"', lambda m: _attributes(m[1]), drawn)
    # Letters are shared by several pictures of a page: each has its own, under names of its own.
    for own in set(re.findall(r' id="([^"]+)"', drawn)):
        drawn = re.sub(rf'(id="|#){re.escape(own)}(?=["\)])', rf"\g<1>{name}-{own}", drawn)
    return Html(drawn.replace("<svg", f'<svg class="figure" role="img" aria-label="{label}"', 1))


def _attributes(style: str) -> str:
    """CSS declarations as attributes of SVG."""
    pairs = [part.split(":", 1) for part in style.split(";") if ":" in part]
    return "".join(f' {name.strip()}="{value.strip()}"' for name, value in pairs)
