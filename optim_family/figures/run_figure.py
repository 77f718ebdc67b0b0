"""One figure for one run or for many: loss, accuracies, sharpness, and sharpness over its threshold.

The views of a single run have different colours; several runs differ in colour, line style and marker. The
files are bitwise identical every time, and need no display.
"""

import math
import operator
from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D

from optim_family.errors import UsageError
from optim_family.figures.curves import Curve, step_axis
from optim_family.figures.overlays import NAMES
from optim_family.figures.panels import draw_accuracy, draw_loss, draw_ratio, draw_sharpness, sharpness_groups
from optim_family.figures.style import BETWEEN, GREY, LEFT, RIGHT, WIDTH, applied, escape_mathtext, head
from optim_family.runs.labels import setting
from optim_family.runs.readings_table import run_labels
from optim_family.runs.run import Run, first_fit_index, last_step, series

HEAD, TITLE, TAU, PANEL, TICKS, STEPS, LINE = 0.55, 0.3, 0.36, 3.1, 0.36, 0.5, 0.19
TAU_LABEL = "τ = ηλt, the time of the sharpness-reduction flow"


def figure(
    runs: Sequence[Run],
    *,
    title: str | None = None,
    names: Sequence[str] | None = None,
    overlays: Collection[str] = NAMES,
) -> Figure:
    """Draw one run, or several in comparison.

    Args:
        runs: as `runs.run.read_run` returns them.
        title: instead of the optimizer of the run, or the number of runs.
        names: of the runs, instead of labels from their specifications.
        overlays: which predictions to draw, of `overlays.NAMES`.

    Raises:
        UsageError: there is no run.
    """
    if not runs:
        raise UsageError("there is nothing to draw; name at least one run directory")
    names = [escape_mathtext(name) for name in names or run_labels(runs)]
    curves = [Curve(run, name, i) for i, (run, name) in enumerate(zip(runs, names, strict=True))]
    columns = _columns(names)
    lines = math.ceil(len(names) / columns) if len(names) > 1 else 0
    with applied():
        tau = _tau_rate(curves) if "tau" in overlays else 0.0
        optimizers = ", ".join(dict.fromkeys(str(run.spec["optimizer"]) for run in runs))
        several = f"{optimizers}: {len(runs)} runs" if lines else names[0]
        # What all runs have in common, and the status of a single run unless it is done.
        status = str(runs[0].status.get("status"))
        ending = [status] if len(runs) == 1 and status != "done" else []
        subtitle = escape_mathtext(", ".join([setting([run.spec for run in runs]), *ending]))
        fig = _sheet(title or several, subtitle, tau, lines)
        _panels(fig, curves, tau, overlays)
        if lines:
            handles = [Line2D([], [], **curve.style, label=curve.name) for curve in curves]
            fig.legend(handles=handles, loc="lower center", ncols=columns, frameon=False)
    return fig


def _columns(names: Sequence[str]) -> int:
    """The number of columns of the legend for which its names leave room."""
    width = 0.75 + 0.075 * max(map(len, names))  # inches, a little more than needed
    return min(len(names), 4, max(1, int(WIDTH / width)))


def _sheet(title: str, subtitle: str, tau: float, lines: int) -> Figure:
    """A figure of the right height with its heading; `lines` of legend will stand at the bottom."""
    height = HEAD + 2 * (TITLE + PANEL) + TICKS + STEPS
    height += (TAU if tau else 0) + (LINE * lines + 0.1 if lines else 0)
    fig = Figure(figsize=(WIDTH, height))
    head(fig, title, subtitle)
    return fig


def _grid(fig: Figure, rows: int, top: float) -> GridSpec:
    """Two panels next to each other, their upper edge `top` inches below that of the figure."""
    height = fig.get_figheight()
    wide = (WIDTH - LEFT - RIGHT - BETWEEN) / 2
    return fig.add_gridspec(
        rows,
        2,
        left=LEFT / WIDTH,
        right=1 - RIGHT / WIDTH,
        top=1 - top / height,
        bottom=1 - (top + PANEL) / height,
        wspace=BETWEEN / wide,
        hspace=0.12,
    )


def _panels(fig: Figure, curves: Sequence[Curve], tau: float, overlays: Collection[str]) -> None:
    groups = sharpness_groups(curves)
    top = HEAD + TITLE + (TAU if tau else 0)
    above, below = _grid(fig, 1, top), _grid(fig, len(groups), top + PANEL + TICKS + TITLE)
    upper = [fig.add_subplot(above[0, i]) for i in (0, 1)]
    middle = [fig.add_subplot(below[i, 0]) for i in range(len(groups))]
    ratio = fig.add_subplot(below[:, 1])
    draw_loss(upper[0], curves, overlays)
    draw_accuracy(upper[1], curves)
    draw_sharpness(middle, groups, curves, overlays)
    draw_ratio(ratio, curves)
    _steps([*upper, *middle, ratio], curves)
    for ax in (middle[-1], ratio):
        ax.set_xlabel("step")
    for ax in upper if tau else ():
        both_ways = partial(operator.mul, tau), partial(operator.mul, 1 / tau)
        ax.secondary_xaxis("top", functions=both_ways).set_xlabel(TAU_LABEL)


def _steps(axes: Sequence[Axes], curves: Sequence[Curve]) -> None:
    """The same steps in every panel; for a single run, a line where training reaches 100 %."""
    end = last_step(curve.run for curve in curves)
    for ax in axes:
        step_axis(ax, end, 8)
        if len(curves) == 1 and (at := first_fit_index(curves[0].run)) is not None:
            ax.axvline(series(curves[0].run, "step")[at], color=GREY, linewidth=0.8, alpha=0.6, zorder=1)


def _tau_rate(curves: Sequence[Curve]) -> float:
    """ηλ if τ = ηλt at every step of every run with one ηλ; else 0."""
    steps, tau = np.concatenate([curve.points("tau") for curve in curves], axis=1)
    rates = tau[steps > 0] / steps[steps > 0]
    return float(rates[0]) if rates.size and np.allclose(rates, rates[0], rtol=1e-6, atol=0) else 0.0
