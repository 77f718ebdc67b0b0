"""The cases as figures and as one offline page: each statement, its numbers and its figure."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from optim_family.figures.html import inline_svg, render
from optim_family.figures.style import COLOURS, DASHES, GREY, MARKERS, PALE, applied, save
from optim_family.runs.atomic_files import make_folder, replace_atomically
from optim_family.theory.trajectory import Trajectory
from optim_family.theory.verify import CaseResult, Checks, Draw, NumericCheck

Errors = dict[str, Tensor]
Paths = dict[str, Trajectory]

EXPECTED: Final[dict[str, Any]] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (4, 2)), "zorder": 1.5}
# Errors below this are drawn at it: a logarithmic axis has no zero.
SMALLEST_DRAWN: Final = 1e-17
CONTROL: Final = ", another path"


def write(results: Sequence[CaseResult], folder: Path) -> Path:
    """Write every figure as <name>.svg and <name>.png, and all of them on one page.

    Returns:
        The page, index.html.

    Raises:
        UsageError: the user may not write the folder.
        CorruptError: the folder cannot be written.
    """
    make_folder(folder)
    rows = []
    for result in results:
        fig = figure(result)
        if fig:
            save(fig, folder, result.case.name)
        rows.append((result, fig and inline_svg(fig, result.case.name)))
    page = folder / "index.html"
    replace_atomically(page, render("verify.html", rows=rows))
    return page


def figure(result: CaseResult) -> Figure | None:
    """The figure of a case; None where it raised an error."""
    if result.failure:
        return None
    with applied():
        fig = Figure(figsize=(7.2, 4.2), layout="constrained")
        ax = fig.add_subplot()
        result.case.draw(ax, result.evidence)
        ax.set_title(result.case.claim, loc="left", wrap=True)
        ax.legend()
    return fig


def line(index: int) -> dict[str, Any]:
    """The style of curve number `index`."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def dots(index: int) -> dict[str, Any]:
    """The style of series number `index` of measured points."""
    return line(index) | {"linestyle": "", "marker": MARKERS[index % len(MARKERS)], "markersize": 4}


def error_case(tolerance: float, title: str, *, control: float = 0.0) -> tuple[Checks, Draw]:
    """The checks and the figure of errors by quantity, one a step, up to the last step.

    Each must vanish up to `tolerance`, except a quantity that ends in `CONTROL`: it must exceed `control`.
    """

    def checks(errors: Errors) -> Iterator[NumericCheck]:
        for quantity, series in errors.items():
            if quantity.endswith(CONTROL):
                yield NumericCheck(quantity, float(series.max()), control, math.inf)
            else:
                yield NumericCheck.vanishes(quantity, series, within=tolerance)

    def draw(ax: Axes, errors: Errors) -> None:
        last = max(map(len, errors.values()))
        for index, (quantity, series) in enumerate(errors.items()):
            steps = range(last - len(series), last)
            ax.plot(
                steps,
                series.abs().clamp_min(SMALLEST_DRAWN),
                label=quantity,
                **dots(index) | {"markersize": 2},
            )
        ax.axhline(tolerance, label=f"tolerance {tolerance:g}", **EXPECTED)
        ax.set(xlabel="step", ylabel=title, yscale="log")

    return checks, draw


def edge_case(low: float, high: float) -> tuple[Checks, Draw]:
    """The checks and the figure of paths by label, whose preconditioned sharpness settles at the threshold.

    The median of their ratio over the second half must lie between `low` and `high`.
    """

    def checks(paths: Paths) -> Iterator[NumericCheck]:
        for label, path in paths.items():
            late = path.ratios[len(path.ratios) // 2 :]
            yield NumericCheck(f"{label}: median of the ratio", float(late.median()), low, high)

    def draw(ax: Axes, paths: Paths) -> None:
        for index, (label, path) in enumerate(paths.items()):
            ax.plot(path.steps, path.ratios, label=label, **line(index))
        ax.axhspan(low, high, xmin=0.5, color=PALE, zorder=0, label="where the late median must lie")
        ax.axhline(1, label="edge of stability", **EXPECTED)
        ax.set(xlabel="step", ylabel="preconditioned sharpness / threshold", ylim=(0, None))

    return checks, draw
