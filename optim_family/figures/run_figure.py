"""One figure for one run or for many: loss, accuracies, sharpness, and sharpness over its threshold.

If runs measured along their updates, two more panels show this.

The views of a single run have different colours; several runs differ in colour, line style and marker. The
files are bitwise identical every time, and need no display.
"""

import math
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D

from optim_family.errors import UsageError, unknown
from optim_family.figures.along_panels import along_is_split, draw_along, draw_rotation
from optim_family.figures.curves import Curve, step_axis
from optim_family.figures.overlays import NAMES
from optim_family.figures.panels import draw_accuracy, draw_loss, draw_ratio, draw_sharpness, sharpness_groups
from optim_family.figures.style import (
    BETWEEN,
    GREY,
    LEFT,
    PRINT,
    RIGHT,
    WIDTH,
    applied,
    escape_mathtext,
    head,
)
from optim_family.runs.labels import setting
from optim_family.runs.readings_table import run_labels
from optim_family.runs.run import Run, first_fit_index, has_along, last_step, series
from optim_family.sharpness.views import VIEWS

HEAD, TITLE, TAU, PANEL, TICKS, STEPS, LINE = 0.55, 0.3, 0.36, 3.1, 0.36, 0.5, 0.19  # inches
TAU_LABEL = "τ = ηλt, the time of the sharpness-reduction flow"
PANELS: Final = ("loss", "accuracy", "sharpness", "ratio", "along", "rotation")


@final
@dataclass(frozen=True)
class _Layout:
    """Inches of a figure; narrower ones than a page have smaller print, and no heading."""

    width: float
    columns: int
    rows: int
    heading: bool
    tau: bool
    lines: int  # of the legend

    @property
    def scale(self) -> float:
        """Of print and distances."""
        return 1.0 if self.width >= 9 else 0.75

    @property
    def panel(self) -> tuple[float, float]:
        """Width and height of a panel."""
        distances = self.scale * (LEFT + RIGHT + (self.columns - 1) * BETWEEN)
        wide = (self.width - distances) / self.columns
        return wide, PANEL if self.width == WIDTH else 0.7 * wide

    @property
    def row(self) -> float:
        """From the upper edge of a panel to that of the next below."""
        return self.panel[1] + self.scale * (TICKS + TITLE)

    @property
    def top(self) -> float:
        """The upper edge of the first panels, from above."""
        return self.scale * ((HEAD if self.heading else 0.08) + TITLE + (TAU if self.tau else 0))

    @property
    def height(self) -> float:
        """Of the figure."""
        legend = self.scale * LINE * self.lines + 0.1 if self.lines else 0
        return self.top + self.rows * self.row + self.scale * (STEPS - TICKS - TITLE) + legend

    def cell(self, fig: Figure, number: int, parts: int) -> GridSpec:
        """The place of a panel, divided into parts below each other."""
        row, column = divmod(number, self.columns)
        (wide, high), top = self.panel, self.top + row * self.row
        left = self.scale * LEFT + column * (wide + self.scale * BETWEEN)
        return fig.add_gridspec(
            parts,
            1,
            left=left / self.width,
            right=(left + wide) / self.width,
            top=1 - top / self.height,
            bottom=1 - (top + high) / self.height,
            hspace=0.12,
        )


def figure(
    runs: Sequence[Run],
    *,
    title: str | None = None,
    names: Sequence[str] | None = None,
    overlays: Collection[str] = NAMES,
    panels: Sequence[str] | None = None,
    width: float | None = None,
    with_start: bool = False,
    ends: Sequence[tuple[Run, Run] | None] | None = None,
) -> Figure:
    """Draw one run, or several in comparison.

    Args:
        runs: as `runs.run.read_run` returns them.
        title: instead of the optimizer of the run, or the number of runs.
        names: of the runs, instead of labels from their specifications.
        overlays: which predictions to draw, of `overlays.NAMES`.
        panels: of `PANELS`, or views, each of which is a panel with its sharpness; None for `usual_panels`.
        width: in inches, for a paper: without a heading, in one column of panels below 5 inches.
        with_start: let the axis of the sharpness reach the values at step 0.
        ends: of every run that is a median, its lowest and highest values, as in `SeedMedian`.

    Raises:
        UsageError: there is no run, or a panel is not known.
    """
    if not runs:
        raise UsageError("there is nothing to draw; name at least one run directory")
    panels = usual_panels(runs) if panels is None else panels
    for name in panels:
        if name not in (*PANELS, *VIEWS):
            raise UsageError(unknown("panel", name, (*PANELS, *VIEWS)))
    names = [escape_mathtext(name) for name in names or run_labels(runs)]
    ends = ends or [None] * len(runs)
    curves = [
        Curve(run, name, i, ends=pair)
        for i, (run, name, pair) in enumerate(zip(runs, names, ends, strict=True))
    ]
    tau = _tau_rate(curves) if "tau" in overlays else 0.0
    layout = _layout(names, width, len(panels), bool(tau))
    with applied(**{name: layout.scale * size for name, size in PRINT.items()}):
        fig = _sheet(layout, title, curves)
        _draw(fig, layout, panels, curves, tau, overlays, with_start)
        if layout.lines:
            handles = [Line2D([], [], **curve.style, label=curve.name) for curve in curves]
            columns = _columns(names, layout)
            fig.legend(handles=handles, loc="lower center", ncols=columns, frameon=False)
    return fig


def usual_panels(runs: Sequence[Run]) -> tuple[str, ...]:
    """The four panels of every figure, and those along updates if a run measured along its own."""
    return PANELS if any(map(has_along, runs)) else PANELS[:4]


def title_of(runs: Sequence[Run]) -> str:
    """The optimizers and the number of runs, or the label of a single run."""
    optimizers = ", ".join(dict.fromkeys(str(run.spec["optimizer"]) for run in runs))
    return run_labels(runs)[0] if len(runs) == 1 else f"{optimizers}: {len(runs)} runs"


def _layout(names: Sequence[str], width: float | None, panels: int, tau: bool) -> _Layout:
    layout = _Layout(width or WIDTH, 1, 1, width is None, tau, 0)
    columns = 1 if layout.width < 5 else min(2, panels)
    lines = math.ceil(len(names) / _columns(names, layout)) if len(names) > 1 else 0
    return replace(layout, columns=columns, rows=math.ceil(panels / columns), lines=lines)


def _columns(names: Sequence[str], layout: _Layout) -> int:
    """The number of columns of the legend for which its names leave room."""
    width = layout.scale * (0.75 + 0.075 * max(map(len, names)))  # inches, a little more than needed
    return min(len(names), 4, max(1, int(layout.width / width)))


def _sheet(layout: _Layout, title: str | None, curves: Sequence[Curve]) -> Figure:
    """A figure of the right size; its heading has what the runs have in common, or the status of one."""
    fig = Figure(figsize=(layout.width, layout.height))
    if layout.heading:
        runs = [curve.run for curve in curves]
        several = escape_mathtext(title_of(runs)) if layout.lines else curves[0].name
        status = str(runs[0].status.get("status"))
        ending = [status] if len(runs) == 1 and status != "done" else []
        subtitle = escape_mathtext(", ".join([setting([run.spec for run in runs]), *ending]))
        head(fig, title or several, subtitle)
    return fig


def _draw(
    fig: Figure,
    layout: _Layout,
    panels: Sequence[str],
    curves: Sequence[Curve],
    tau: float,
    overlays: Collection[str],
    with_start: bool,
) -> None:
    for number, name in enumerate(panels):
        groups = sharpness_groups(curves, name) if name == "sharpness" or name in VIEWS else [curves]
        parts = 2 if name == "along" and along_is_split(curves) else len(groups)
        cell = layout.cell(fig, number, parts)
        axes = [fig.add_subplot(cell[i, 0]) for i in range(parts)]
        if name == "loss":
            draw_loss(axes[0], curves, overlays)
        elif name == "accuracy":
            draw_accuracy(axes[0], curves)
        elif name == "ratio":
            draw_ratio(axes[0], curves)
        elif name == "along":
            draw_along(axes, curves)
        elif name == "rotation":
            draw_rotation(axes[0], curves)
        else:
            draw_sharpness(axes, groups, curves, overlays, with_start=with_start)
        _steps(axes, curves)
        if number + layout.columns >= len(panels):
            axes[-1].set_xlabel("step")
        if tau and number < layout.columns:
            both_ways = partial(operator.mul, tau), partial(operator.mul, 1 / tau)
            axes[0].secondary_xaxis("top", functions=both_ways).set_xlabel(TAU_LABEL)


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
