"""Draw curves of runs: line, error band, marks, logarithmic axis, legend.

Colour, line style and marker all differ between curves, so that a figure can be read in grey.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from optim_family.analysis.study_table import destabilisations
from optim_family.figures.style import (
    ASIDE,
    COLOURS,
    CROSS,
    DASHES,
    EXIT,
    GREY,
    MARKERS,
    RING,
    STAR,
    UNSTABLE,
)
from optim_family.runs.run import Run, first_fit_index, series

Array = NDArray[np.float64]

INTERVALS = 1000  # of the steps that a panel tells apart; it is some 700 pixels wide


@final
@dataclass(frozen=True)
class Curve:
    """A run, or one view of it, with its name and the index of its style.

    `ends` are the lowest and the highest values, as runs, if the run is the median of several.
    """

    run: Run
    name: str
    index: int
    view: str = ""
    ends: tuple[Run, Run] | None = None

    @property
    def color(self) -> str:
        """The colour of its style."""
        return COLOURS[self.index % len(COLOURS)]

    @property
    def style(self) -> dict[str, Any]:
        """Colour, line style, and some eight markers, staggered."""
        line = {"color": self.color, "linestyle": DASHES[self.index % len(DASHES)]}
        marker = MARKERS[self.index % len(MARKERS)]
        return line | {"marker": marker, "markersize": 4, "markevery": self.marks(self.run.columns.count)}

    def marks(self, points: int) -> tuple[int, int]:
        """Index of the first point with a marker, and the distance of markers, in points."""
        every = max(1, points // 8)
        return self.index * 3 * every // 8 % every, every

    @property
    def diverged(self) -> bool:
        """Whether training ended in a number that is not finite."""
        return self.run.status.get("status") == "diverged"

    def points(self, *fields: str) -> Array:
        """(step, value, …) where all the fields, of the view if there is one, are finite: [1 + k, n]."""
        table = np.array([series(self.run, "step"), *map(self._series, fields)])
        finite = np.isfinite(table).all(0)
        return table if finite.all() else table[:, finite]

    def has(self, field: str) -> bool:
        """Whether the field has a finite value."""
        return bool(np.isfinite(self._series(field)).any())

    def _series(self, field: str) -> Array:
        return series(self.run, f"{self.view}.{field}" if self.view else field)


def downsample(points: Array) -> Array:
    """Keep the visible points of (x, y, …), [k, n] → [k, m]; x does not decrease.

    If there are no more than 2 k INTERVALS points, all are kept, else those of `extreme_indices`.
    """
    if points.shape[1] <= 2 * len(points) * INTERVALS:
        return points
    return points[:, extreme_indices(points, INTERVALS)]


def extreme_indices(points: Array, intervals: int) -> list[int]:
    """The indices of the points of (x, y, …), [k, n], that draw the same lines; x does not decrease.

    In each of the intervals of x these are the first and the last point, and those where a y is lowest or
    highest: at most 2 k points in each.
    """
    x, *ys = points
    if not x.size:
        return []
    inner = np.linspace(x[0], x[-1], intervals + 1)[1:-1]
    indices = set[int]()
    for begin, end in pairwise([0, *np.searchsorted(x, inner), len(x)]):
        if begin < end:
            indices |= {int(begin), int(end) - 1}
            indices |= {int(begin + at) for y in ys for at in (y[begin:end].argmin(), y[begin:end].argmax())}
    return sorted(indices)


def plot_curve(ax: Axes, curve: Curve, field: str, *, scale: float = 1.0, **style: Any) -> None:
    """Draw a line in the style of its curve, changed by `style`; a dash if there is a single point."""
    points = curve.points(field)
    steps, values = downsample(points)
    share = len(steps) / max(1, points.shape[1])
    marks = curve.marks(round(share * curve.run.columns.count))
    options = {**curve.style, "markevery": marks, **style}
    if len(steps) == 1 and not options["marker"]:
        options |= {"marker": "_", "markersize": 12}
    ax.plot(steps, scale * values, **options)


def plot_range(ax: Axes, curve: Curve, field: str, *, scale: float = 1.0) -> None:
    """Draw the range of several runs as a band, if the curve is their median."""
    if curve.ends is None:
        return
    low, high = (replace(curve, run=end).points(field) for end in curve.ends)
    ax.fill_between(low[0], scale * low[1], scale * high[1], color=curve.color, alpha=0.18, linewidth=0)


def mark_divergence(ax: Axes, curves: Iterable[Curve], field: str, *, scale: float = 1.0) -> None:
    """Draw a cross at the last point of each run that diverged, on the edge of the panel if it left there."""
    low, high = ax.get_ylim()
    for curve in curves:
        for step, y in curve.points(field)[:, -1:].T if curve.diverged else []:
            ax.plot(step, min(max(scale * y, low), high), color=curve.color, zorder=5, clip_on=False, **CROSS)


def mark_fit(ax: Axes, curve: Curve, field: str) -> bool:
    """Draw a star on an accuracy where training first reaches 100 %; return whether it does."""
    if (at := first_fit_index(curve.run)) is None:
        return False
    step, accuracy = (series(curve.run, name)[at] for name in ("step", field))
    ax.plot(step, 100 * accuracy, color=curve.color, zorder=5, **STAR)
    return True


def mark_destabilisations(ax: Axes, curve: Curve) -> bool:
    """Draw a mark on the test accuracy where training is destabilised, and return whether it is."""
    begins = [] if curve.ends else destabilisations(curve.run)
    steps, accuracy = (series(curve.run, name)[begins] for name in ("step", "test_accuracy"))
    ax.plot(steps, 100 * accuracy, color=curve.color, zorder=5, **UNSTABLE)
    return bool(begins)


def plot_reading(ax: Axes, curve: Curve, field: str) -> None:
    """Draw a line with its error as a band, and a ring around each reading that did not converge.

    The band of a median is the range.
    """
    plot_curve(ax, curve, field)
    if curve.ends:
        return plot_range(ax, curve, field)
    steps, y, error, value = curve.points(field, "error", "value")
    with np.errstate(all="ignore"):
        wide = np.abs(error / value * y)
    # A band that reached zero would reach the bottom of a logarithmic axis.
    band = np.array([steps, y - np.minimum(wide, 0.99 * np.abs(y)), y + wide])
    ax.fill_between(*downsample(band[:, np.isfinite(wide)]), color=curve.color, alpha=0.18, linewidth=0)
    steps, y, converged = curve.points(field, "converged")
    rings = np.array([steps, y])[:, converged == 0]
    ax.plot(*downsample(rings), color=curve.color, **RING)


def step_axis(ax: Axes, end: int, ticks: int) -> None:
    """Let x show the steps from 0 to `end`, with at most `ticks` intervals."""
    ax.set_xlim(-0.02 * end, 1.02 * end)
    ax.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10], integer=True))


def log_axis(ax: Axes, series: Iterable[ArrayLike], *, skip_first: bool = False) -> None:
    """Make y logarithmic over all series, and state how many values it cannot show.

    A run that diverges must not flatten the others: the axis ends at 1000 × the first values or the median,
    whichever is higher, and at a tenth of the 2nd percentile. If nothing is above 0, y is linear. A triangle
    points to where a line leaves the panel.

    Args:
        ax: with its lines.
        series: all values of y, a list a line.
        skip_first: ignore the first values if they would take a third of the axis, as those of step 0 may.
    """
    lists = [np.asarray(values, dtype=np.float64) for values in series]
    if skip_first:
        lists = _without_far_starts(lists)
    whole = np.concatenate([np.empty(0), *lists])
    positive = np.sort(whole[whole > 0])
    if hidden := len(whole) - len(positive):
        ax.set_title(f"{hidden} values ≤ 0 not shown" if positive.size else "nothing above 0", **ASIDE)
    if not positive.size:
        return
    firsts = [float(values[0]) for values in lists if len(values) and values[0] > 0]
    least, second, middle, most = positive[[0, len(positive) // 50, len(positive) // 2, -1]].tolist()
    low = min(max(least, second / 10), *firsts, most)
    high = min(most, 1000 * max(middle, *firsts, low))
    bottom, top = (min(max(math.log10(end), -200.0), 200.0) for end in (low, high))
    margin = max(0.02, 0.05 * (top - bottom))
    ax.set_yscale("log", nonpositive="mask")
    ax.set_ylim(10 ** (bottom - margin), 10 ** (top + margin))
    plain_ticks(ax, top - bottom)
    mark_exits(ax)


def _without_far_starts(lists: Sequence[Array]) -> list[Array]:
    """Without the first value of each list if the axis would be half as long again with them."""

    def decades(each: Iterable[Array]) -> float:
        positive = np.concatenate([values[values > 0] for values in each])
        return math.log10(positive.max() / positive.min()) if positive.size else 0.0

    later = [values[1:] for values in lists]
    long = min((len(values) for values in lists if len(values)), default=0) > 4
    return later if long and decades(lists) > 1.5 * decades(later) > 0 else [*lists]


def mark_exits(ax: Axes) -> None:
    """Draw a triangle on the edge of the panel where each line leaves it."""
    low, high = ax.get_ylim()
    for line in list(ax.lines):
        if line.get_transform() != ax.transData:
            continue
        x, y = (np.asarray(data, dtype=np.float64) for data in line.get_data())
        for outside, edge, marker in ((y > high, high, "^"), ((0 < y) & (y < low), low, "v")):
            begins = outside & ~np.append(False, outside[:-1])
            ends = x[begins]
            if ends.size:
                ax.plot(ends, np.full(len(ends), edge), color=line.get_color(), marker=marker, **EXIT)


def plain_ticks(ax: Axes, decades: float) -> None:
    """Label a logarithmic y axis of up to three decades with plain numbers, the more the shorter it is."""
    if decades < 3:
        # A label such as 1.5 × 10⁸ is too wide for the margin.
        halves = (1.5,) if ax.get_ylim()[1] < 1e5 else ()
        finer = LogLocator(subs=(1, *halves, 2, 3, 5, 7)) if decades > 0.45 else MaxNLocator(5)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if decades > 0.9 else finer)
        low, high = ax.get_ylim()
        plain = low > 5e-4 and high < 2e5  # else all in powers of ten: one way of writing an axis
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, plain)))
        ax.yaxis.set_minor_formatter(NullFormatter())


def _tick(value: float, plain: bool) -> str:
    if plain or value == 0:
        return f"{value:.6g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    factor = f"{float(mantissa):g}"
    return rf"${'' if factor == '1' else factor + chr(92) + 'times'}10^{{{int(exponent)}}}$"


def legend(ax: Axes, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw a legend of grey handles, which explain line styles and marks, where it covers least."""
    handles = [Line2D([], [], **{"color": GREY, **style}, label=name) for name, style in entries.items()]
    ax.legend(handles=handles, loc="best")
