"""The panels of the measurements along the last update: the loss along it, and the angle of a step."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, final

import numpy as np
from matplotlib.axes import Axes

from optim_family.figures import style
from optim_family.figures.curves import (
    Array,
    Curve,
    legend,
    log_axis,
    mark_divergence,
    plot_curve,
    plot_range,
)
from optim_family.figures.ratio_axis import ratio_axis
from optim_family.runs.run import ALONG, has_along

TWO_OVER_LR: Final = "2/η"


@final
class Quantity(NamedTuple):
    """A field of the measurements along an update, its name, and the number of its style."""

    field: str
    name: str
    style: int


# Sums of styles of views and variants have other numbers.
CURVATURE: Final = Quantity("curvature", "curvature", 202)
SMOOTHNESS: Final = Quantity("smoothness", "directional smoothness", 201)
CRITICAL: Final = Quantity("critical", "critical sharpness", 200)
RATIOS: Final = (
    CRITICAL._replace(field="critical_ratio", name=f"critical sharpness / ({TWO_OVER_LR})"),
    SMOOTHNESS._replace(field="smoothness_ratio", name="directional smoothness / its limit"),
)


def along_curves(curves: Sequence[Curve]) -> list[Curve]:
    """Those of runs that measured along their updates."""
    return [replace(curve, view=ALONG) for curve in curves if has_along(curve.run)]


def of_quantity(curve: Curve, quantity: Quantity) -> Curve:
    """A single run's curve in the style of a quantity."""
    return replace(curve, name=quantity.name, index=quantity.style)


def along_ratios(curve: Curve) -> list[tuple[Curve, str]]:
    """The ratios along the updates of a single run, each as a curve and its field; none if not recorded."""
    named = [(of_quantity(along, ratio), ratio.field) for along in along_curves([curve]) for ratio in RATIOS]
    return [(each, field) for each, field in named if each.has(field)]


def along_is_split(curves: Sequence[Curve]) -> bool:
    """Whether `draw_along` needs two axes: for a single run, as the units differ."""
    return len(curves) == 1 and has_along(curves[0].run)


def draw_along(axes: Sequence[Axes], curves: Sequence[Curve]) -> None:
    """Of one run, curvature and smoothness, and below them the critical sharpness; of several, its ratio."""
    along = along_curves(curves)
    if not along_is_split(curves):
        return _draw_ratio(axes[0], along, len(curves) - len(along))
    axes[0].set_title("Along the last update", loc="left")
    groups = ((CURVATURE, SMOOTHNESS), (CRITICAL,))
    for ax, quantities, unit in zip(axes, groups, ("loss / weight²", "1 / learning rate"), strict=True):
        entries, lists = dict[str, dict[str, Any]](), list[Array]()
        for quantity in quantities:
            curve = of_quantity(along[0], quantity)
            plot_curve(ax, curve, quantity.field)
            plot_range(ax, curve, quantity.field)
            entries[f"{quantity.name}, {unit}"] = curve.style
            lists.append(curve.points(quantity.field)[1])
        if CRITICAL in quantities:
            limit = _two_over_lr(along[0])
            ax.plot(*limit, color=of_quantity(along[0], CRITICAL).color, **style.RUN_THRESHOLD)
            lists.append(limit[1])
            entries[TWO_OVER_LR] = style.RUN_THRESHOLD | {"color": of_quantity(along[0], CRITICAL).color}
        log_axis(ax, lists, skip_first=True)
        legend(ax, entries)
        ax.tick_params(labelbottom=ax is axes[-1])


def draw_rotation(ax: Axes, curves: Sequence[Curve]) -> None:
    """The angle by which the weights turn in a step, and dotted that of equilibrium, where it is known."""
    ax.set_title("Rotation per step, radians", loc="left")
    along = along_curves(curves)
    for curve in along:
        plot_curve(ax, curve, "rotation")
        plot_range(ax, curve, "rotation")
        plot_curve(ax, curve, "equilibrium_rotation", **style.RUN_THRESHOLD)
    _say_absent(ax, len(curves) - len(along), len(curves))
    fields = ("rotation", "equilibrium_rotation")
    log_axis(ax, [curve.points(field)[1] for curve in along for field in fields], skip_first=True)
    if any(curve.has("equilibrium_rotation") for curve in along):
        legend(ax, {"in equilibrium": style.RUN_THRESHOLD | {"color": style.GREY}})
    mark_divergence(ax, along, "rotation")


def _draw_ratio(ax: Axes, along: Sequence[Curve], absent: int) -> None:
    """The ratio of the critical sharpness to 2/η, with a line where an update leaves the loss as it is."""
    ax.set_title(f"Critical sharpness / ({TWO_OVER_LR}), along the last update", loc="left")
    for curve in along:
        plot_curve(ax, curve, "critical_ratio")
        plot_range(ax, curve, "critical_ratio")
    _say_absent(ax, absent, absent + len(along))
    ax.text(
        0.99,
        1,
        "loss as before",
        transform=ax.get_yaxis_transform(),
        ha="right",
        va="bottom",
        fontsize="small",
    )
    ratio_axis(ax, [curve.points("critical_ratio")[1] for curve in along])
    mark_divergence(ax, along, "critical_ratio")


def _say_absent(ax: Axes, absent: int, count: int) -> None:
    if absent:
        ax.set_title(f"{absent} of {count} have none", **style.ASIDE)


def _two_over_lr(curve: Curve) -> Array:
    """(step, 2/η) of the records with a critical sharpness: [2, n]."""
    steps, value, ratio = curve.points("critical", "critical_ratio")
    return np.array([steps, value / ratio])
