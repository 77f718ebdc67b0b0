"""The axis of a ratio whose value 1 has a meaning: a decade around 1, and a line at 1."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from optim_family.figures.curves import Array, log_axis, mark_exits, plain_ticks


def ratio_axis(ax: Axes, ratios: Sequence[Array]) -> None:
    """Make y a logarithmic axis of the ratios, a list a line, with a line at 1."""
    ax.axhline(1, color="black", linewidth=0.9, zorder=1.5)
    log_axis(ax, ratios)
    if ax.get_yscale() == "log":
        low, high = _ratio_range(ratios)
        ax.set_ylim(low, high)
        plain_ticks(ax, math.log10(high / low))
        mark_exits(ax)


def _ratio_range(ratios: Sequence[Array]) -> tuple[float, float]:
    """A decade around 1; more only if the median of a line's second half lies beyond it."""
    positive = [values[values > 0] for values in ratios if (values > 0).any()]
    whole, late = np.concatenate(positive), [np.median(values[len(values) // 2 :]) for values in positive]
    low = max(whole.min(), min(0.1, min(late) / 3))
    high = min(whole.max(), max(10, max(late) * 3))
    return min(0.5, low) / 1.1, max(2, high) * 1.1
