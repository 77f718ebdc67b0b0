"""Small multiples of sharpness against threshold or of test accuracy: a cell for each setting and optimizer.

Where most of these cells would be empty, all are in one column. An arm has one style in all cells, explained
below its column. Three seeds or more are their median and a band from the lowest to the highest.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from optim_family.analysis.seed_medians import seed_medians
from optim_family.analysis.study_table import first_view, own_view
from optim_family.figures.curves import (
    Curve,
    log_axis,
    mark_divergence,
    mark_fit,
    plot_curve,
    plot_range,
    step_axis,
)
from optim_family.figures.style import ASIDE, GREY, RUN_THRESHOLD, WIDTH, applied, escape_mathtext
from optim_family.runs.run import Run, last_step, series
from optim_family.sharpness.views import LOWER_BOUND, VIEWS

# Inches, fixed for the same reasons as in `run_figure`.
NARROWEST, WIDEST, HEIGHT = 2.0, 5.5, 1.7  # of a cell
LEFT, RIGHT, BETWEEN, ABOVE, HEAD, FOOT, LINE = 0.95, 0.2, 0.6, 0.25, 0.8, 0.5, 0.19
LETTERS: Final = 36  # in a line of a legend below one of several columns
CROWD: Final = 50  # with more curves than this a cell has no markers
FEWEST: Final = 3  # seeds that are drawn as a median
SPARSE: Final = 2 / 3  # with a smaller share of cells that have runs, all are in one column
Cells = dict[tuple[str, str], list[Curve]]  # by setting and optimizer
ArmStyles = dict[str, dict[str, Any]]  # options of `plot` by arm


def sharpness_small_multiples(runs: Sequence[Run], arms: Sequence[str], settings: Sequence[str]) -> Figure:
    """The sharpness in every optimizer's own geometry, and its threshold, if it has one.

    Args:
        runs: of a study.
        arms: of every run, as in `StudyResults.rows`.
        settings: likewise.
    """
    title = "Sharpness in the optimizer's own geometry; dotted: its threshold"
    return _small_multiples(title, runs, arms, settings, _sharpness)


def accuracy_small_multiples(runs: Sequence[Run], arms: Sequence[str], settings: Sequence[str]) -> Figure:
    """Test accuracy, and a star where training reaches 100 %; arguments as above."""
    title = "Test accuracy, %; star: training reaches 100 %"
    fig = _small_multiples(title, runs, arms, settings, _accuracy)
    rows: dict[int, list[Axes]] = {}
    for ax in fig.axes:
        if (place := ax.get_subplotspec()) and ax.lines:
            rows.setdefault(place.rowspan.start, []).append(ax)
    for axes in rows.values():
        lows, highs = zip(*(ax.get_ylim() for ax in axes), strict=True)
        for ax in axes:
            ax.set_ylim(min(lows), max(highs))
    return fig


def _small_multiples(
    title: str,
    runs: Sequence[Run],
    arms: Sequence[str],
    settings: Sequence[str],
    draw_cell: Callable[[Axes, Sequence[Curve]], None],
) -> Figure:
    curves = _curves(runs, arms, settings)
    note = "Three seeds or more: median and range." * any(curve.ends for _, curve in curves)
    rows, columns, cells = _cells(curves)
    legends = [_arm_styles(cells, column) for column in columns]
    lowest = [max(i for i, row in enumerate(rows) if cells[row, column]) for column in columns]
    empty = [(len(rows) - 1 - i) * (HEIGHT + ABOVE) for i in lowest]  # inches that its legend may use
    lines = [sum(name.count("\n") + 1 for name in styles) for styles in legends]
    tail = max(LINE * count - room for count, room in zip(lines, empty, strict=True))
    with applied():
        fig, axes = _sheet((title, note), rows, columns, legends, tail)
        for ax, cell in zip(axes.flat, cells.values(), strict=True):
            draw_cell(ax, cell)
        _frame(axes, [bool(cell) for cell in cells.values()], last_step(runs))
        for cells_of_column, styles in zip(axes.T, legends, strict=True):
            _legend([ax for ax in cells_of_column if ax.lines][-1:], styles)
    return fig


def _curves(runs: Sequence[Run], arms: Sequence[str], settings: Sequence[str]) -> list[tuple[str, Curve]]:
    """The setting and the curve of every run, or of the median of several seeds that did not diverge."""
    indices = {arm: index for index, arm in enumerate(dict.fromkeys(arms))}
    places = {id(run): place for run, *place in zip(runs, arms, settings, strict=True)}
    curves = []
    for group in seed_medians(runs):
        arm, setting = places[id(group.runs[0])]
        diverged = any(run.status.get("status") == "diverged" for run in group.runs)
        together = len(group.runs) >= FEWEST and not diverged
        for run, ends in [(group.median, group.ends)] if together else [(run, None) for run in group.runs]:
            curves.append((setting, Curve(run, escape_mathtext(arm), indices[arm], ends=ends)))
    return curves


def _cells(curves: Sequence[tuple[str, Curve]]) -> tuple[list[str], list[str], Cells]:
    """Headings of the rows and of the columns, and all cells; one column if most cells would be empty."""
    places = [(setting, str(curve.run.spec["optimizer"])) for setting, curve in curves]
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*places, strict=True))
    if len(set(places)) < SPARSE * len(rows) * len(columns):
        places = [(f"{optimizer}, {setting}", "") for setting, optimizer in places]
        rows, columns = list(dict.fromkeys(row for row, _ in places)), [""]
    cells: Cells = {(row, column): [] for row in rows for column in columns}
    for place, (_, curve) in zip(places, curves, strict=True):
        cells[place].append(curve)
    return rows, columns, cells


def _arm_styles(cells: Cells, column: str) -> ArmStyles:
    """The arms of a column, in lines of a few words, without the optimizer's name, which stands above it."""
    curves = [curve for (_, each), cell in cells.items() if each == column for curve in cell]
    letters = LETTERS if column else 2 * LETTERS
    names = (
        textwrap.wrap(c.name.removeprefix(f"{column} "), letters, break_on_hyphens=False) for c in curves
    )
    return {"\n".join(lines): curve.style for lines, curve in zip(names, curves, strict=True)}


def _legend(lowest: Sequence[Axes], styles: ArmStyles) -> None:
    """The arms of a column, below its lowest cell."""
    handles = [Line2D([], [], **arm, label=name) for name, arm in styles.items()]
    for ax in lowest:
        below = (-0.02, -FOOT / HEIGHT)
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=below, frameon=False, borderpad=0)


def _sheet(
    heading: tuple[str, str],
    rows: Sequence[str],
    columns: Sequence[str],
    legends: Sequence[ArmStyles],
    tail: float,
) -> tuple[Figure, Any]:
    """A figure with its heading, its axes [rows, columns], and `tail` inches for legends."""
    longest = max(len(line) for styles in legends for name in styles for line in name.split("\n"))
    narrowest = max(NARROWEST, 0.065 * longest)
    wide = LEFT + RIGHT + len(columns) * (narrowest + BETWEEN) - BETWEEN
    wide = max(wide, min(WIDTH, LEFT + RIGHT + len(columns) * WIDEST))
    width = (wide - LEFT - RIGHT + BETWEEN) / len(columns) - BETWEEN
    high = HEAD + len(rows) * (HEIGHT + ABOVE) - ABOVE + FOOT + tail
    fig = Figure(figsize=(wide, high))
    title, note = heading
    fig.text(0.012, 1 - 0.1 / high, title, va="top", fontsize=12, fontweight="bold", parse_math=False)
    fig.text(0.012, 1 - 0.33 / high, note, va="top", color=GREY)
    spaces = {"wspace": BETWEEN / width, "hspace": ABOVE / HEIGHT}
    fig.subplots_adjust(LEFT / wide, (FOOT + tail) / high, 1 - RIGHT / wide, 1 - HEAD / high, **spaces)
    axes = fig.subplots(len(rows), len(columns), squeeze=False)
    plain: dict[str, Any] = {"fontweight": "bold", "parse_math": False}
    for ax, name in zip(axes[0], columns, strict=True):
        ax.annotate(name, (0, 1), (0, 12), "axes fraction", textcoords="offset points", **plain)
    for ax, name in zip(axes[:, 0], rows, strict=True):
        if columns == [""]:
            ax.annotate(name, (0, 1), (0, 4), "axes fraction", textcoords="offset points", parse_math=False)
            continue
        lines = textwrap.wrap(name, 26)
        ax.set_ylabel("\n".join(lines), parse_math=False, fontsize=9 if len(lines) < 3 else 7)
    return fig, axes


def _frame(axes: Any, filled: Sequence[bool], end: int) -> None:
    """The same steps in all cells, labelled below the lowest of each column; empty cells vanish."""
    grid = np.reshape(filled, axes.shape)
    for (i, j), ax in np.ndenumerate(axes):
        lowest = not grid[i + 1 :, j].any()
        step_axis(ax, end, 4)
        ax.tick_params(labelbottom=lowest, labelsize=8)
        ax.set_xlabel("step" if lowest else "")
        if not grid[i, j]:
            for part in (*ax.spines.values(), ax.xaxis, ax.patch, *([ax.yaxis] if j else [])):
                part.set_visible(False)
            ax.set_yticks([])


def _sharpness(ax: Axes, curves: Sequence[Curve]) -> None:
    own_curves = [replace(curve, view=own_view(curve.run) or _norm_view(curve.run)) for curve in curves]
    own_curves = [curve for curve in own_curves if curve.view]
    for curve in own_curves:
        plot_curve(ax, curve, "threshold", **RUN_THRESHOLD | {"linewidth": 1.0})
        plot_curve(ax, curve, "value", **_marks(own_curves))
        plot_range(ax, curve, "value")
    lists = [c.points(field)[1] for c in own_curves for field in ("value", "threshold")]
    log_axis(ax, lists, skip_first=True)
    mark_divergence(ax, own_curves, "value")
    if any(VIEWS[curve.view].generalized for curve in own_curves):
        ax.set_title(LOWER_BOUND, **ASIDE)


def _norm_view(run: Run) -> str:
    """The view in an optimizer's norm, which may have no threshold; empty if it was not measured."""
    return first_view(run, [name for name, view in VIEWS.items() if view.generalized])


def _accuracy(ax: Axes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        plot_curve(ax, curve, "test_accuracy", scale=100, **_marks(curves))
        plot_range(ax, curve, "test_accuracy", scale=100)
        mark_fit(ax, curve, "test_accuracy")
    ends = [run for curve in curves for run in curve.ends or (curve.run,)]
    later = [y for run in ends for y in series(run, "test_accuracy")[run.columns.count // 8 :] if y >= 0]
    if later:
        ax.set_ylim(max(0, 100 * min(later) - 3), min(101, 100 * max(later) + 3))
    mark_divergence(ax, curves, "test_accuracy", scale=100)


def _marks(curves: Sequence[Curve]) -> dict[str, Any]:
    """Small markers; none where there are too many curves."""
    return {"markersize": 3} if len(curves) <= CROWD else {"marker": ""}
