"""Small multiples: a cell for each setting and optimizer, of sharpness against threshold or of test accuracy.

An arm has one look in all cells, named below its column; its seeds are lines of that look. All cells share
their steps.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from optim_family.analysis.study_table import OWN, first_view
from optim_family.figures.curves import Curve, log_axis, mark_divergence, plot_curve
from optim_family.figures.style import STYLE, WIDTH, escape_mathtext
from optim_family.runs.run import Run, first_fit_index, last_step, series

# Inches, fixed for the same reasons as in `run_figure`.
NARROWEST, WIDEST, HEIGHT, LEFT, RIGHT, BETWEEN, ABOVE, HEAD, FOOT, LINE = (
    2.0,
    5.5,
    1.7,
    0.95,
    0.2,
    0.6,
    0.25,
    0.65,
    0.5,
    0.19,
)
CROWD: Final = 50  # with more curves than this a cell has no markers
_THRESHOLD: Final[dict[str, Any]] = {"linewidth": 1.0, "linestyle": ":", "marker": ""}
_STAR: Final[dict[str, Any]] = {"marker": "*", "markersize": 11, "mec": "white", "linestyle": "", "zorder": 5}
Cells = dict[tuple[str, str], list[Curve]]  # by setting and optimizer
ArmStyles = dict[str, dict[str, Any]]  # by arm


def sharpness_multiples(runs: Sequence[Run], arms: Sequence[str], settings: Sequence[str]) -> Figure:
    """The sharpness in every optimizer's own metric, and its threshold.

    Args:
        runs: of a study.
        arms: of every run, as in `summary.rows`.
        settings: likewise.
    """
    title = "Sharpness in the optimizer's own metric; dotted: its threshold"
    return _multiples(title, runs, arms, settings, _sharpness)


def accuracy_multiples(runs: Sequence[Run], arms: Sequence[str], settings: Sequence[str]) -> Figure:
    """Test accuracy, and where training reaches 100 %.

    Args:
        runs: of a study.
        arms: of every run, as in `summary.rows`.
        settings: likewise.
    """
    drawn = _multiples("Test accuracy, %; star: training reaches 100 %", runs, arms, settings, _accuracy)
    late = np.concatenate([series(run, "test_accuracy")[run.columns.count // 2 :] for run in runs])
    low = min(late[np.isfinite(late)], default=0.0)
    for ax in drawn.axes:
        ax.set_ylim(max(0, 100 * low - 15), 101)
    return drawn


def _multiples(
    title: str,
    runs: Sequence[Run],
    arms: Sequence[str],
    settings: Sequence[str],
    draw_cell: Callable[[Axes, Sequence[Curve]], None],
) -> Figure:
    looks = {arm: look for look, arm in enumerate(dict.fromkeys(arms))}
    curves = [Curve(run, escape_mathtext(arm), looks[arm]) for run, arm in zip(runs, arms, strict=True)]
    columns = list(dict.fromkeys(str(run.spec["optimizer"]) for run in runs))
    cells: Cells = {(row, column): [] for row in dict.fromkeys(settings) for column in columns}
    for curve, setting in zip(curves, settings, strict=True):
        cells[setting, curve.run.spec["optimizer"]].append(curve)
    keys = [
        {c.name: c.style for (_, column), cell in cells.items() if column == each for c in cell}
        for each in columns
    ]
    rows = list(dict.fromkeys(settings))
    lowest = [max(i for i, row in enumerate(rows) if cells[row, column]) for column in columns]
    empty = [(len(rows) - 1 - i) * (HEIGHT + ABOVE) for i in lowest]  # inches, where a key finds room
    tail = max(LINE * len(key) - room for key, room in zip(keys, empty, strict=True))
    with style.context(STYLE, after_reset=True):
        drawn, axes = _sheet(title, rows, columns, keys, tail)
        for ax, curves in zip(axes.flat, cells.values(), strict=True):
            draw_cell(ax, curves)
        _frame(axes, [bool(curves) for curves in cells.values()], last_step(runs))
        for cells_of_column, column, key in zip(axes.T, columns, keys, strict=True):
            _key([ax for ax in cells_of_column if ax.lines][-1:], column, key)
    return drawn


def _key(lowest: Sequence[Axes], column: str, looks: ArmStyles) -> None:
    """The arms of a column, below its lowest cell, without the name that stands above it."""
    handles = [Line2D([], [], **look, label=name.removeprefix(f"{column} ")) for name, look in looks.items()]
    for ax in lowest:
        below = (-0.02, -FOOT / HEIGHT)
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=below, frameon=False, borderpad=0)


def _sheet(
    title: str, rows: Sequence[str], columns: Sequence[str], keys: Sequence[ArmStyles], tail: float
) -> tuple[Figure, Any]:
    """A figure of the right size with its heading, its axes [rows][columns], and a tail for keys."""
    longest = max(len(name) - len(column) for column, key in zip(columns, keys, strict=True) for name in key)
    narrowest = max(NARROWEST, 0.065 * longest)
    wide = LEFT + RIGHT + len(columns) * (narrowest + BETWEEN) - BETWEEN
    wide = max(wide, min(WIDTH, LEFT + RIGHT + len(columns) * WIDEST))
    width = (wide - LEFT - RIGHT + BETWEEN) / len(columns) - BETWEEN
    high = HEAD + len(rows) * (HEIGHT + ABOVE) - ABOVE + FOOT + tail
    drawn = Figure(figsize=(wide, high))
    drawn.text(0.012, 1 - 0.1 / high, title, va="top", fontsize=12, fontweight="bold", parse_math=False)
    axes = drawn.subplots(
        len(rows),
        len(columns),
        squeeze=False,
        gridspec_kw={
            "left": LEFT / wide,
            "right": 1 - RIGHT / wide,
            "top": 1 - HEAD / high,
            "bottom": (FOOT + tail) / high,
            "wspace": BETWEEN / width,
            "hspace": ABOVE / HEIGHT,
        },
    )
    plain: dict[str, Any] = {"fontweight": "bold", "parse_math": False}
    for ax, name in zip(axes[0], columns, strict=True):
        ax.annotate(name, (0, 1), (0, 12), "axes fraction", textcoords="offset points", **plain)
    for ax, name in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel("\n".join(textwrap.wrap(name, 26)), parse_math=False)
    return drawn, axes


def _frame(axes: Any, filled: Sequence[bool], end: int) -> None:
    """The same steps in all cells, told below the lowest of a column; empty cells vanish."""
    there = np.reshape(filled, axes.shape)
    for (i, j), ax in np.ndenumerate(axes):
        lowest = not there[i + 1 :, j].any()
        ax.set_xlim(-0.02 * end, 1.02 * end)
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
        ax.tick_params(labelbottom=lowest, labelsize=8)
        ax.set_xlabel("step" if lowest else "")
        if not there[i, j]:
            for part in (*ax.spines.values(), ax.xaxis, ax.patch, *([ax.yaxis] if j else [])):
                part.set_visible(False)
            ax.set_yticks([])


def _sharpness(ax: Axes, curves: Sequence[Curve]) -> None:
    shown = [replace(curve, view=first_view(curve.run, OWN)) for curve in curves]
    shown = [curve for curve in shown if curve.view]
    for curve in shown:
        plot_curve(ax, curve, "threshold", **_THRESHOLD)
        plot_curve(ax, curve, "value", **_marks(shown))
    log_axis(ax, [c.points(field)[1] for c in shown for field in ("value", "threshold")])
    mark_divergence(ax, shown, "value")


def _accuracy(ax: Axes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        plot_curve(ax, curve, "test_accuracy", scale=100, **_marks(curves))
        for step, accuracy in _fits(curve):
            ax.plot(step, 100 * accuracy, color=curve.color, **_STAR)
    mark_divergence(ax, curves, "test_accuracy", scale=100)


def _marks(curves: Sequence[Curve]) -> dict[str, Any]:
    """Small markers; none in a crowd, which they would only cover."""
    return {"markersize": 3} if len(curves) <= CROWD else {"marker": ""}


def _fits(curve: Curve) -> Iterator[tuple[float, float]]:
    """The step at which training reaches 100 %, and the test accuracy there."""
    if (at := first_fit_index(curve.run)) is not None:
        step, accuracy = (series(curve.run, name)[at] for name in ("step", "test_accuracy"))
        yield step, accuracy
