"""One figure for one run or for many: loss, accuracies, sharpness, and sharpness over its threshold.

A single run shows its views, each in a colour of its own; of several runs each has a colour, a line style
and a marker of its own. The files are the same bytes every time, and need no display.
"""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from optim_family.curves import GREY, Curve
from optim_family.errors import UsageError
from optim_family.labels import setting
from optim_family.panels import draw_accuracy, draw_loss, draw_ratio, draw_sharpness, sharpness_groups
from optim_family.store import Run, replace_atomically
from optim_family.tables import fitted, run_labels

WIDTH, HEIGHT = 11.0, 7.6  # inches, of the four panels
HEAD, LINE = 0.55, 0.2  # inches: the two lines above the panels; one line of the legend below
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.labelcolor": GREY,
    "legend.fontsize": 8,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.3,
    "svg.fonttype": "path",
    "svg.hashsalt": "optim-family",
}


def figure(runs: Sequence[Run], *, title: str | None = None) -> Figure:
    """Draw one run, or several in comparison.

    Args:
        runs: as `store.read_run` gives them.
        title: instead of the optimizer of the run, or the number of runs.

    Raises:
        UsageError: there is no run.
    """
    if not runs:
        raise UsageError("there is nothing to draw; name at least one run directory")
    names = [_literal(name) for name in run_labels(runs)]
    curves = [Curve(run, name, look) for look, (run, name) in enumerate(zip(runs, names, strict=True))]
    columns = 0 if len(runs) == 1 else _columns(names)
    with style.context(STYLE, after_reset=True):
        drawn = _sheet(title or _title(runs, names), runs, math.ceil(len(runs) / columns) if columns else 0)
        _panels(drawn, curves)
        if columns:
            handles = [Line2D([], [], **curve.style, label=curve.name) for curve in curves]
            drawn.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
        # Arranged once: a second arrangement would start from the first, and move everything a little.
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")
    return drawn


def save(figure: Figure, folder: Path, stem: str = "figure") -> list[Path]:
    """Write <stem>.svg and <stem>.png into a folder, the same bytes every time.

    Returns:
        Both paths.

    Raises:
        CorruptError: the folder cannot be written.
    """
    paths = [folder / f"{stem}.svg", folder / f"{stem}.png"]
    for path, metadata in zip(paths, ({"Date": None}, {"Software": None}), strict=True):
        buffer = io.BytesIO()
        with style.context(STYLE, after_reset=True):
            figure.savefig(buffer, format=path.suffix[1:], dpi=150, metadata=metadata)
        replace_atomically(path, buffer.getvalue())
    return paths


def _title(runs: Sequence[Run], names: Sequence[str]) -> str:
    optimizers = dict.fromkeys(str(run.spec["optimizer"]) for run in runs)
    return names[0] if len(runs) == 1 else f"{', '.join(optimizers)}: {len(runs)} runs"


def _columns(names: Sequence[str]) -> int:
    """As many columns in the legend as its names leave room for."""
    width = 0.75 + 0.075 * max(map(len, names))  # inches, a little more than it takes
    return min(len(names), 4, max(1, int(WIDTH / width)))


def _sheet(title: str, runs: Sequence[Run], lines: int) -> Figure:
    """An empty figure with its heading: the title, and under it what all runs have in common."""
    height = HEIGHT + HEAD + LINE * lines
    drawn = Figure(figsize=(WIDTH, height))
    below = (0, 0, 1, 1 - HEAD / height)
    drawn.set_layout_engine(ConstrainedLayoutEngine(rect=below, hspace=0.03, wspace=0.03))
    drawn.text(0.012, 1 - 0.12 / height, title, va="top", fontsize=12, fontweight="bold")
    drawn.text(0.012, 1 - 0.36 / height, _literal(_subtitle(runs)), va="top", color=GREY)
    return drawn


def _subtitle(runs: Sequence[Run]) -> str:
    """What all runs have in common, and how a single run ended, if not as it should."""
    status = str(runs[0].status.get("status"))
    ending = [status] if len(runs) == 1 and status != "done" else []
    return ", ".join([setting([run.spec for run in runs]), *ending])


def _literal(text: str) -> str:
    """Text in which a dollar is a dollar, not mathematics."""
    return text.replace("$", r"\$")


def _panels(drawn: Figure, curves: Sequence[Curve]) -> None:
    groups = sharpness_groups(curves)
    grid = drawn.add_gridspec(4, 2)
    upper = [drawn.add_subplot(grid[:2, 0]), drawn.add_subplot(grid[:2, 1])]
    cells = [grid[2:, 0]] if len(groups) == 1 else [grid[2, 0], grid[3, 0]]
    middle = [drawn.add_subplot(cell) for cell in cells]
    ratio = drawn.add_subplot(grid[2:, 1])
    draw_loss(upper[0], curves)
    draw_accuracy(upper[1], curves)
    draw_sharpness(middle, groups, curves)
    draw_ratio(ratio, curves)
    _steps([*upper, *middle, ratio], curves)
    for ax in (middle[-1], ratio):
        ax.set_xlabel("step")
    for ax in upper:
        _tau_axis(ax, curves)


def _steps(axes: Sequence[Axes], curves: Sequence[Curve]) -> None:
    """The same steps in every panel; a single run has a line where it reaches 100 %."""
    end = max([record["step"] for curve in curves for record in curve.run.records], default=0) or 1
    for ax in axes:
        ax.set_xlim(-0.02 * end, 1.02 * end)
        ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
        if len(curves) == 1 and (at := fitted(curves[0].run)) is not None:
            ax.axvline(curves[0].run.records[at]["step"], color=GREY, linewidth=0.8, alpha=0.6, zorder=1)


def _tau_axis(ax: Axes, curves: Sequence[Curve]) -> None:
    """τ = ηλt above, where it is the same multiple of the step in all runs."""
    rates = [_tau_rate(curve) for curve in curves]
    rate = rates[0]
    if rate and all(math.isclose(other, rate, rel_tol=1e-6) for other in rates):
        above = ax.secondary_xaxis("top", functions=(_times(rate), _times(1 / rate)))
        above.set_xlabel("τ = ηλt")


def _tau_rate(curve: Curve) -> float:
    """ηλ; 0 where it is zero, not constant or not known."""
    rows = [(step, tau) for step, tau in curve.points("tau") if step]
    rate = rows[-1][1] / rows[-1][0] if rows else 0.0
    return rate if all(math.isclose(tau, rate * step, rel_tol=1e-6) for step, tau in rows) else 0.0


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda x: x * factor
