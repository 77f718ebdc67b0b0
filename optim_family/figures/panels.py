"""The four panels of every figure, each drawn by one routine for one run and for many."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from matplotlib.axes import Axes

from optim_family.analysis.study_table import EDGE
from optim_family.figures import style
from optim_family.figures.along_panels import along_ratios
from optim_family.figures.curves import (
    Array,
    Curve,
    downsample,
    legend,
    log_axis,
    mark_destabilisations,
    mark_divergence,
    mark_fit,
    plot_curve,
    plot_range,
    plot_reading,
)
from optim_family.figures.overlays import mean_loss, steepest_drift, threshold_is_two_over_effective_lr
from optim_family.figures.ratio_axis import ratio_axis
from optim_family.runs.run import views
from optim_family.sharpness.views import (
    KINDS,
    LOWER_BOUND,
    PRECONDITIONED,
    UNPRECONDITIONED,
    VARIANTS,
    VIEWS,
    label,
    split_view_name,
)


def draw_loss(ax: Axes, curves: Sequence[Curve], overlays: Collection[str] = ()) -> None:
    """Training loss, faintly its peak between two records, and its predicted mean."""
    ax.set_title("Training loss", loc="left")
    for curve in curves:
        plot_curve(ax, curve, "peak_loss", **style.PEAK)
        plot_curve(ax, curve, "train_loss")
        plot_range(ax, curve, "train_loss")
    log_axis(ax, [c.points(field)[1] for c in curves for field in ("train_loss", "peak_loss")])
    mark_divergence(ax, curves, "train_loss")
    crosses = {"diverged": style.CROSS} if any(curve.diverged for curve in curves) else {}
    means = [(curve, mean_loss(curve.run)) for curve in curves if "loss" in overlays]
    predicted = _predict(ax, means, style.MEAN, "mean at the edge, at most S ηλ / 4 with S = 2/ℓ")
    legend(ax, {"at the record": {}, "peak since the previous record": style.PEAK, **crosses, **predicted})


def draw_accuracy(ax: Axes, curves: Sequence[Curve]) -> None:
    """Test and training accuracy; marks where training first reaches 100 %, and where it is destabilised."""
    ax.set_title("Accuracy, %", loc="left")
    fits, unstable = [], []
    for curve in curves:
        plot_curve(ax, curve, "train_accuracy", scale=100, **style.TRAIN)
        plot_curve(ax, curve, "test_accuracy", scale=100, **style.TEST)
        plot_range(ax, curve, "test_accuracy", scale=100)
        fits.append(mark_fit(ax, curve, "train_accuracy"))
        unstable.append(mark_destabilisations(ax, curve))
    values = [c.points(f"{f}_accuracy")[1] for c in curves for f in ("train", "test")]
    ax.set_ylim(100 * min([ys.min() for ys in values if ys.size], default=0.0) - 4, 104)
    mark_divergence(ax, curves, "test_accuracy", scale=100)
    stars = {"training reaches 100 %": style.STAR} if any(fits) else {}
    marks = {"destabilised": style.UNSTABLE} if any(unstable) else {}
    legend(ax, {"test": style.TEST, "training": style.TRAIN, **stars, **marks})


def draw_sharpness(
    axes: Sequence[Axes],
    groups: Sequence[Sequence[Curve]],
    curves: Sequence[Curve],
    overlays: Collection[str] = ("edge",),
    *,
    with_start: bool = False,
) -> None:
    """Sharpness, its threshold and its steepest drift; each axis has one group of `sharpness_groups`.

    The limits ignore a far value at step 0, unless `with_start`.
    """
    axes[0].set_title(_sharpness_title(groups, curves), loc="left")
    if absent := len(curves) - len({curve.name for group in groups for curve in group}):
        axes[0].set_title(f"{absent} of {len(curves)} have none", **style.ASIDE)
    limits = ("threshold", "small_batch_threshold") if "edge" in overlays else ()
    fields = ("value", *limits)
    for ax, group in zip(axes, groups, strict=True):
        for curve in _themselves(group) if limits else ():
            plot_curve(ax, curve, "threshold", **style.RUN_THRESHOLD)
        for curve in group if limits else ():
            plot_curve(ax, curve, "small_batch_threshold", **style.SMALL_BATCHES)
        for curve in group:
            plot_reading(ax, curve, "value")
        log_axis(ax, [c.points(field)[1] for c in group for field in fields], skip_first=not with_start)
        mark_divergence(ax, group, "value")
        _reading_legend(ax, group, overlays, single_run=len(curves) == 1)
        ax.tick_params(labelbottom=ax is axes[-1])


def sharpness_groups(curves: Sequence[Curve], view: str = "sharpness") -> list[list[Curve]]:
    """Curves that share an axis: all runs; of a single run each metric, as they lie decades apart.

    With the name of a view, they are those of this view.
    """
    if view in VIEWS:
        return [[replace(curve, view=view) for curve in curves if _has(curve, view)]]
    if len(curves) == 1:
        bases = [curve for order in (UNPRECONDITIONED, PRECONDITIONED) for curve in _first(curves[0], order)]
        families = ([c.view + variant for variant in VARIANTS if _has(c, c.view + variant)] for c in bases)
        return [[_of_view(curves[0], view) for view in family] for family in families] or [[]]
    order = UNPRECONDITIONED + PRECONDITIONED
    common = tuple(view for view in order if all(_has(curve, view) for curve in curves))
    return [[first for curve in curves for first in _first(curve, common + order)]]


def _sharpness_title(groups: Sequence[Sequence[Curve]], curves: Sequence[Curve]) -> str:
    """The views that are drawn, and whether the spherical sharpness does not apply."""
    names = list(dict.fromkeys(label(curve.view) for group in groups for curve in _themselves(group)))
    absent = [c for c in curves if "spherical" in views(c.run) and not _has(c, "spherical")]
    if not names:
        return "Sharpness: no readings"
    if len(curves) > 1 and len(names) > 1 and "spherical" in names:
        rest = [name for name in names if name != "spherical"]
        return f"Spherical sharpness; {' or '.join(rest)} where that is missing"
    units = {VIEWS[split_view_name(c.view)[0]].unit for group in groups for c in group}
    unit = f", {units.pop()}" if len(units) == 1 else ""
    title = f"{' and '.join(names)} sharpness".capitalize() + unit
    return f"{title} (spherical does not apply)" if absent and "spherical" not in names else title


def _predict(
    ax: Axes, predictions: Sequence[tuple[Curve, Array]], line: dict[str, Any], name: str
) -> dict[str, dict[str, Any]]:
    """Draw predictions within the limits of the axis; returns their entry in the legend, if any."""
    nonempty = [(curve, points) for curve, points in predictions if points.size]
    for curve, points in nonempty:
        ax.plot(*downsample(points), color=curve.color, scaley=False, zorder=3, **line)
    return {name: line} if nonempty else {}


def _reading_legend(ax: Axes, group: Sequence[Curve], overlays: Collection[str], single_run: bool) -> None:
    """A legend of the views of a single run, of threshold, drift and rings."""
    entries = {label(curve.view): curve.style for curve in group if single_run}
    themselves = _themselves(group)
    colour = {"color": group[0].color} if single_run and group else {}
    if "edge" in overlays and any(curve.has("threshold") for curve in themselves):
        entries[_threshold_name(themselves, group)] = style.RUN_THRESHOLD | colour
        for curve in group:
            if curve.has("small_batch_threshold"):
                entries[f"plateau of small batches{_plateaus(curve)[0]}"] = style.SMALL_BATCHES | {
                    "color": curve.color
                }
    spherical = [curve for curve in themselves if curve.view == "spherical" and "drift" in overlays]
    falls = [(curve, steepest_drift(curve.run)) for curve in spherical]
    for name, line in _predict(ax, falls, style.DRIFT, "steepest drift from the edge, $e^{-2τ}$").items():
        entries[name] = line | colour
    if any((curve.points("converged")[1] == 0).any() for curve in group):
        entries["not converged"] = style.RING
    if entries:
        legend(ax, entries)


def _threshold_name(themselves: Sequence[Curve], group: Sequence[Curve]) -> str:
    """2/ℓ, that of a normalised step, or that of large batches, where it is so for all curves."""
    if all(threshold_is_two_over_effective_lr(curve.run, curve.view) for curve in themselves):
        return "threshold 2/ℓ"
    if all(curve.has("dual") for curve in themselves):
        return "threshold (2 − ηλ)/η"
    plateaus = [_plateaus(curve)[1] for curve in group if curve.has("small_batch_threshold")]
    return f"threshold: plateau of large batches{plateaus[0]}" if plateaus else "threshold"


def _plateaus(curve: Curve) -> tuple[str, str]:
    """Formulas of the plateaus of small and of large batches, times ρ² in a spherical view."""
    hyper = curve.run.spec["hyper"]
    if not hyper.get("momentum") or hyper.get("dampening"):
        return ", (1 − β)/(1 + β) of the threshold", ""
    square = "ρ²" if VIEWS[split_view_name(curve.view)[0]].spherical else ""
    return f", 2(1 − β){square}/η", f", 2(1 + β){square}/η"


def draw_ratio(ax: Axes, curves: Sequence[Curve]) -> None:
    """Sharpness / threshold: all views of a single run; of several runs each in its optimizer's geometry.

    For a single run the plateau of small batches is a line, and the ratios along its updates are drawn if no
    view has a threshold.
    """
    ratio_curves = _ratio_curves(curves)
    ax.set_title(_ratio_title(ratio_curves) if len(curves) > 1 else "Sharpness / threshold", loc="left")
    for curve in ratio_curves:
        plot_reading(ax, curve, "ratio")
    ratios = [curve.points("ratio")[1] for curve in ratio_curves]
    entries = {curve.name: curve.style for curve in ratio_curves}
    for curve, field in along_ratios(curves[0]) if len(curves) == 1 and not ratio_curves else ():
        plot_curve(ax, curve, field)
        ratios.append(curve.points(field)[1])
        entries[curve.name] = curve.style
    for curve in ratio_curves if len(curves) == 1 else ():
        entries |= _mark_small_batches(ax, curve)
    ax.axhspan(*EDGE, **style.BAND)
    if not ratio_curves:
        ax.set_title("no view has a threshold", **style.ASIDE)
        ax.set_ylim(0, 2)
    ax.text(1.01, 1, "edge of\nstability", transform=ax.get_yaxis_transform(), va="center", fontsize="small")
    ratio_axis(ax, ratios)
    if len(curves) == 1 and entries:
        legend(ax, entries)
    mark_divergence(ax, ratio_curves, "ratio")


def _ratio_curves(curves: Sequence[Curve]) -> list[Curve]:
    """Of several runs the view of lowest rank; of a single run one curve for the views of equal ratio."""
    if len(curves) > 1:
        order = PRECONDITIONED + UNPRECONDITIONED
        return [first for curve in curves for first in _first(curve, order, "ratio")]
    ratio_curves = []
    for variant, kind in product(VARIANTS, KINDS):
        if equal := [view for view in kind if _has(curves[0], view + variant, "ratio")]:
            name = " and ".join(map(label, equal)) + VARIANTS[variant].label
            ratio_curves.append(_of_view(replace(curves[0], name=name), equal[0] + variant))
    return ratio_curves


def _ratio_title(ratio_curves: Sequence[Curve]) -> str:
    """Of several runs."""
    views = {curve.view for curve in ratio_curves}
    title = "Sharpness / threshold"
    if any(VIEWS[view].generalized for view in views):
        return f"{title}, own geometry; {LOWER_BOUND}s in norms"
    return title + (", each in its optimizer's metric" if views & {*PRECONDITIONED} else "")


def _mark_small_batches(ax: Axes, curve: Curve) -> dict[str, dict[str, Any]]:
    """Draw small-batch threshold / threshold, (1 − β)/(1 + β); returns its entry in the legend, if any."""
    steps, small, threshold = curve.points("small_batch_threshold", "threshold")
    if not steps.size:
        return {}
    line = style.SMALL_BATCHES | {"color": curve.color}
    ax.plot(steps, small / threshold, **line)
    return {"plateau of small batches, (1 − β)/(1 + β)": line}


def _first(curve: Curve, order: Sequence[str], field: str = "value") -> list[Curve]:
    """The first view of an order that the run has, as a list of one or none."""
    return [replace(curve, view=view) for view in order if _has(curve, view, field)][:1]


def _has(curve: Curve, view: str, field: str = "value") -> bool:
    return replace(curve, view=view).has(field)


def _of_view(curve: Curve, view: str) -> Curve:
    """The view of a single run, in the colour of the view."""
    base, variant = split_view_name(view)
    return replace(curve, view=view, index=VIEWS[base].style + VARIANTS[variant].style)


def _themselves(group: Sequence[Curve]) -> list[Curve]:
    """The curves of views, without those of their variants."""
    return [curve for curve in group if not split_view_name(curve.view)[1]]
