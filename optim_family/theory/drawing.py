"""How the figures of the cases look: colours, errors on a logarithmic axis, what was expected in grey."""

from typing import Any, Final

from matplotlib.axes import Axes
from torch import Tensor

from optim_family.figures.style import COLOURS, DASHES, GREY, MARKERS

EXPECTED: Final[dict[str, Any]] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (4, 2)), "zorder": 1.5}
# Errors below this are drawn on the floor: a zero has no place on a logarithmic axis.
FLOOR: Final = 1e-17


def line(index: int) -> dict[str, Any]:
    """The look of one curve of several."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def dots(index: int) -> dict[str, Any]:
    """The look of measured points."""
    marker = MARKERS[index % len(MARKERS)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": "", "marker": marker, "markersize": 4}


def draw_errors(ax: Axes, x: Tensor, errors: Tensor, label: str, index: int) -> None:
    """Errors, on a logarithmic axis."""
    ax.plot(x, errors.abs().clamp_min(FLOOR), label=label, **dots(index) | {"markersize": 2})
    ax.set_yscale("log")


def draw_tolerance(ax: Axes, tolerance: float) -> None:
    """The line below which everything has to stay."""
    ax.axhline(tolerance, label=f"tolerance {tolerance:g}", **EXPECTED)


def draw_edge(ax: Axes) -> None:
    """The line of ratio 1."""
    ax.axhline(1, label="edge of stability", **EXPECTED)


def largest(errors: Tensor) -> float:
    """The size of the largest of some errors; NaN if one is."""
    return float(errors.abs().max())
