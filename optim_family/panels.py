"""The four panels of a figure, each drawn by one routine for one run and for many."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes

from optim_family.curves import (
    ASIDE,
    CROSS,
    RING,
    Curve,
    draw,
    draw_reading,
    key,
    log_axis,
    plain_ticks,
    trace,
)
from optim_family.tables import column, fitted, views

PLAIN = ("spherical", "riemannian", "raw")
METRIC = ("spherical-preconditioned", "preconditioned")
# Views that differ by ρ² alone have the same ratio, and share a curve.
KINDS = (("spherical", "raw"), METRIC, ("riemannian",))
LOOKS = ("spherical", "spherical-preconditioned", "raw", "preconditioned", "riemannian")

TRAIN: dict[str, Any] = {"linewidth": 0.9, "linestyle": (0, (4, 2))}
TEST: dict[str, Any] = {"linewidth": 1.7}
PEAK: dict[str, Any] = {"linewidth": 0.7, "linestyle": "-", "alpha": 0.45}
LIMIT: dict[str, Any] = {"linewidth": 1.3, "linestyle": ":", "marker": ""}
STAR: dict[str, Any] = {"marker": "*", "markersize": 11, "mec": "white", "linestyle": ""}


def draw_loss(ax: Axes, curves: Sequence[Curve]) -> None:
    """Training loss, and faint what it rose to between two records."""
    ax.set_title("Training loss")
    for curve in curves:
        trace(ax, curve, "peak_loss", **PEAK)
        draw(ax, curve, "train_loss")
    log_axis(ax, [[y for _, y in c.points(field)] for c in curves for field in ("train_loss", "peak_loss")])
    crosses = {"diverged": CROSS} if any(curve.diverged for curve in curves) else {}
    key(ax, {"at the record": {}, "highest since the record before": PEAK, **crosses}, loc="upper right")


def draw_accuracy(ax: Axes, curves: Sequence[Curve]) -> None:
    """Test and training accuracy, with a star where training first reaches 100 %."""
    ax.set_title("Accuracy, %")
    for curve in curves:
        trace(ax, curve, "train_accuracy", scale=100, **TRAIN)
        draw(ax, curve, "test_accuracy", scale=100, **TEST)
        if (at := fitted(curve.run)) is not None:
            ax.plot(curve.run.records[at]["step"], 100, color=curve.color, zorder=5, **STAR)
    ax.set_ylim(top=103)
    key(ax, {"test": TEST, "training": TRAIN, "training reaches 100 %": STAR}, loc="lower right")


def draw_sharpness(axes: Sequence[Axes], groups: Sequence[Sequence[Curve]], curves: Sequence[Curve]) -> None:
    """Sharpness and its threshold, one group of `sharpness_groups` on each axis, from the top."""
    axes[0].set_title(_sharpness_title(groups[0], curves))
    for ax, group in zip(axes, groups, strict=True):
        for curve in group:
            trace(ax, curve, "threshold", **LIMIT)
            draw_reading(ax, curve, "value")
        log_axis(ax, [[y for _, y in c.points(field)] for c in group for field in ("value", "threshold")])
        _reading_key(ax, group, named=len(curves) == 1)
        ax.tick_params(labelbottom=ax is axes[-1])


def sharpness_groups(curves: Sequence[Curve]) -> list[list[Curve]]:
    """What shares an axis: all runs; or in a single run each metric, for they lie decades apart."""
    if len(curves) == 1:
        found = [curve for order in (PLAIN, METRIC) for curve in _first(curves[0], order)]
        return [[_of_view(curve, curve.view)] for curve in found] or [[]]
    common = [view for view in PLAIN + METRIC if all(_has(curve, view) for curve in curves)]
    return [[found for curve in curves for found in _first(curve, (*common, *PLAIN, *METRIC))]]


def _sharpness_title(group: Sequence[Curve], curves: Sequence[Curve]) -> str:
    """What is drawn, and whether the spherical sharpness is missing because it does not apply."""
    names = " or ".join(dict.fromkeys(_plain(curve.view) for curve in group))
    title = f"{names} sharpness".capitalize() if names else "Sharpness: no readings"
    absent = [c for c in curves if "spherical" in views(c.run) and not _has(c, "spherical")]
    if not absent or names == "spherical":
        return title
    where = "" if len(absent) == len(curves) else f" to {len(absent)} of {len(curves)} runs"
    return f"{title} (spherical does not apply{where})"


def _reading_key(ax: Axes, group: Sequence[Curve], named: bool) -> None:
    """Views by name in a single run; what the threshold and the rings are."""
    entries = {_plain(curve.view): curve.style for curve in group if named}
    if any(curve.points("threshold") for curve in group):
        colour = {"color": group[0].color} if named else {}
        entries["threshold 2/ℓ" if all(map(_two_over_l, group)) else "threshold"] = {**LIMIT, **colour}
    if any(not converged for curve in group for _, converged in curve.points("converged")):
        entries["not converged"] = RING
    if entries:
        key(ax, entries, loc="best")


def _two_over_l(curve: Curve) -> bool:
    """Whether the threshold is 2/ℓ at every record: that of the spherical sharpness without momentum."""
    rows = zip(column(curve.run, f"{curve.view}.threshold"), column(curve.run, "effective_lr"), strict=True)
    return all(math.isnan(limit) or math.isclose(limit * lr, 2, rel_tol=1e-4) for limit, lr in rows)


def draw_ratio(ax: Axes, curves: Sequence[Curve]) -> None:
    """Every view of a single run; of several, each run in its optimizer's own metric."""
    shown = _ratio_curves(curves)
    own = len(curves) > 1 and any(curve.view in METRIC for curve in shown)
    ax.set_title("Sharpness / threshold" + (", each in its optimizer's metric" if own else ""))
    for curve in shown:
        draw_reading(ax, curve, "ratio")
    ax.axhline(1, color="black", linewidth=0.9, zorder=1.5)
    ax.text(1.01, 1, "edge of\nstability", transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    if not shown:
        ax.set_title("no view has a threshold", **ASIDE)
    log_axis(ax, [[y for _, y in curve.points("ratio")] for curve in shown])
    if len(curves) == 1 and shown:
        key(ax, {curve.name: curve.style for curve in shown}, loc="best")
    if ax.get_yscale() == "log":
        low, high = _ratio_range(shown)
        ax.set_ylim(low, high)
        plain_ticks(ax, high / low)


def _ratio_curves(curves: Sequence[Curve]) -> list[Curve]:
    if len(curves) > 1:
        return [found for curve in curves for found in _first(curve, METRIC + PLAIN, "ratio")]
    kinds = [[view for view in kind if _has(curves[0], view, "ratio")] for kind in KINDS]
    return [_of_view(replace(curves[0], name=" and ".join(map(_plain, k))), k[0]) for k in kinds if k]


def _ratio_range(shown: Sequence[Curve]) -> tuple[float, float]:
    """The readings within a decade of 1; beyond it only if the second half of a run lies there."""
    ratios = [[y for _, y in curve.points("ratio") if y > 0] for curve in shown]
    whole = [y for values in ratios for y in values]
    late = sorted(y for values in ratios for y in values[len(values) // 2 :]) or [1.0]
    low, high = late[len(late) // 20], late[-1 - len(late) // 20]
    lower = min(0.5, max(min(whole), min(0.1, low)))
    return lower / 1.1, 1.1 * max(2, min(max(whole), max(10, high)))


def _first(curve: Curve, order: Sequence[str], field: str = "value") -> list[Curve]:
    """The first view of an order that the run has, as a list of one or none."""
    return [replace(curve, view=view) for view in order if _has(curve, view, field)][:1]


def _has(curve: Curve, view: str, field: str = "value") -> bool:
    return bool(replace(curve, view=view).points(field))


def _of_view(curve: Curve, view: str) -> Curve:
    """The view of a single run, in the colour of the view."""
    return replace(curve, view=view, look=LOOKS.index(view))


def _plain(view: str) -> str:
    return view.replace("-", " ")
