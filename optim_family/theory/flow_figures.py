"""Figures of gradient descent and the flow against τ, and of the distance between them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from optim_family.analysis.predictions import mean_excess_loss, modulation_period, sharpness_floor
from optim_family.figures.curves import plain_ticks
from optim_family.figures.style import COLOURS, DASHES, GREY, MARKERS, STYLE
from optim_family.theory.flow_comparison import ORDERS, Comparison, exponent
from optim_family.theory.run_drift import CUTS, RunDrift

MEASURED: Final[dict[str, Any]] = {
    "color": COLOURS[0],
    "linestyle": "",
    "marker": "o",
    "markersize": 3.5,
    "label": "gradient descent",
}
PREDICTED: Final[dict[str, Any]] = {"color": COLOURS[1], "linestyle": "", "marker": "s", "mfc": "none"}
CUT: Final[dict[str, Any]] = {"color": COLOURS[2], "linestyle": "", "marker": "D", "markersize": 4}
FLOOR: Final[dict[str, Any]] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (5, 2))}
EXPECTED: Final[dict[str, Any]] = {"color": "black", "linewidth": 1.2}


def toy_figure(comparison: Comparison, title: str) -> Figure:
    """Sharpness, oscillation and loss against τ, and the modulation against steps."""
    setting, flow = comparison.setting, comparison.flow
    title = f"{title}; gradient descent, η = {setting.lr:g}, ηλ = {setting.eta_lambda:g}"
    with _four_panels(title) as (drawn, axes):
        for ax, measured, expected, formula, heading in (
            (axes[0], comparison.sharpness, flow.sharpness, "flow", "Spherical sharpness S"),
            (
                axes[1],
                comparison.variance,
                comparison.expected_variance,
                "2ηλ / (4 + q)",
                "Variance of the oscillation a²",
            ),
            (
                axes[2],
                comparison.loss,
                comparison.expected_loss,
                "S ηλ / (4 + q)",
                "Loss, mean over two modulation periods",
            ),
        ):
            ax.set_title(heading, loc="left")
            _draw_comparison(ax, flow.tau, measured, expected, formula)
        _draw_modulation(axes[3], comparison)
    return drawn


@contextmanager
def _four_panels(title: str) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of four panels, in the style of all figures."""
    with style.context(STYLE, after_reset=True):
        drawn = Figure(figsize=(11, 6.6), layout="constrained")
        drawn.suptitle(title, x=0.01, ha="left", fontweight="bold")
        yield drawn, list(drawn.subplots(2, 2).flat)


def _draw_comparison(ax: Axes, tau: Tensor, measured: Tensor, expected: Tensor, formula: str) -> None:
    ax.plot(tau, measured, **MEASURED)
    ax.plot(tau, expected, **EXPECTED, label=formula)
    both = torch.cat([expected, measured])
    low, high = float(both.min()), float(both.max())
    # Wide limits, so that agreement to one per cent looks like it.
    ax.set(yscale="log", ylim=(low / 1.2, high * 1.2), xlabel="τ = ηλt")
    plain_ticks(ax, math.log10(1.44 * high / low))
    ax.legend()


def _draw_modulation(ax: Axes, comparison: Comparison) -> None:
    """log of a² over its prediction, from too wide an oscillation, and lines at the predicted period."""
    period, steps = (
        modulation_period(comparison.setting.eta_lambda),
        torch.arange(len(comparison.modulation)) + 1,
    )
    ax.set_title("Modulation: log a² / expected, from too wide an oscillation", loc="left")
    ax.plot(steps, comparison.modulation, color=COLOURS[0])
    ax.axhline(0, color=GREY, linewidth=0.8)
    rises = (comparison.modulation[:-1] < 0) & (comparison.modulation[1:] >= 0)
    first = float(steps[1:][rises][0]) if rises.any() else 0.0
    label = f"every π / √(2ηλ) = {period:.1f} steps; measured {comparison.period:.1f}"
    for count in range(int((len(steps) - first) / period) + 1):
        ax.axvline(first + count * period, label=label if not count else None, **EXPECTED, linestyle=":")
    ax.set_ylim(top=ax.get_ylim()[1] * 1.5)  # room for the legend
    ax.set_xlabel("step")
    ax.legend(loc="upper right")


def network_figure(drift: RunDrift, title: str) -> Figure:
    """A run past its edge: S, its slope, the mean loss, and q by its cut-off."""
    with _four_panels(title) as (drawn, axes):
        for ax, draw in zip(
            axes, (_draw_sharpness, _draw_slopes, _draw_mean_loss, _draw_removed), strict=True
        ):
            draw(ax, drift)
            ax.legend(loc="center right" if draw is _draw_slopes else "best")
    return drawn


def _draw_sharpness(ax: Axes, drift: RunDrift) -> None:
    tau = drift.eta_lambda * drift.steps
    floor = [sharpness_floor(float(drift.sharpness[0]), float(t - tau[0])) for t in tau]
    ax.set_title("Spherical sharpness", loc="left")
    ax.plot(tau, drift.sharpness, color=COLOURS[0], linewidth=1.0, label="S at midpoints")
    ax.plot(tau, drift.threshold, color=COLOURS[1], linestyle=":", linewidth=1.6, label="threshold 2/ℓ")
    ax.plot(tau, floor, label="steepest drift, $e^{-2τ}$", **FLOOR)
    limits = float(drift.sharpness.min()) / 1.5, float(drift.sharpness.max()) * 1.2
    ax.set(yscale="log", ylim=limits, xlabel="τ = ηλt")
    plain_ticks(ax, 1.0)


def _draw_slopes(ax: Axes, drift: RunDrift) -> None:
    rows = _columns(drift)
    ax.set_title("Slope d log S / dτ", loc="left")
    measured = {**MEASURED, "label": "measured, ± standard error"}
    ax.errorbar(rows["tau"], rows["slope_measured"], rows["slope_error"], **measured)
    label = f"−2q / (4 + q), {len(drift.checkpoints[0].q)} eigenvectors removed"
    ax.plot(rows["tau"], rows["slope_predicted"], label=label, **PREDICTED)
    label = f"the same, |curvature| below {CUTS[-1]:g} λ₁"
    ax.plot(rows["tau"], rows["slope_smallest_cut"], label=label, **CUT)
    ax.axhline(-2, label="steepest drift", **FLOOR)
    ax.set(ylim=(-2.3, 0.3), xlabel="τ = ηλt")


def _draw_mean_loss(ax: Axes, drift: RunDrift) -> None:
    rows = _columns(drift)
    ax.set_title("Mean training loss", loc="left")
    ax.plot(rows["tau"], rows["loss_measured"], **{**MEASURED, "label": "measured"})
    ax.plot(rows["tau"], rows["loss_predicted"], label="S ηλ / (4 + q)", **PREDICTED)
    label = "S ηλ (2 + s) / 8, s the measured slope"
    ax.plot(rows["tau"], rows["loss_from_slope"], color="black", label=label)
    largest = [mean_excess_loss(sharpness, drift.eta_lambda) for sharpness in rows["sharpness"]]
    ax.plot(rows["tau"], largest, label="S ηλ / 4", **FLOOR)
    ax.set(yscale="log", xlabel="τ = ηλt")


def _columns(drift: RunDrift) -> dict[str, list[float]]:
    rows = drift.rows()
    return {name: [row[name] for row in rows] for name in rows[0]}


def _draw_removed(ax: Axes, drift: RunDrift) -> None:
    """q by the largest curvature that counts as a direction along the minimisers."""
    ax.set_title("q of the directions with |curvature| below c λ₁", loc="left")
    last = len(drift.checkpoints) - 1
    for index, at in enumerate(drift.checkpoints):
        shade = 0.25 + 0.75 * index / max(1, last)
        label = f"τ = {drift.eta_lambda * at.step:.2f}" if index in (0, last) else None
        ax.plot(CUTS, at.below, color=COLOURS[0], alpha=shade, linewidth=1.1, label=label)
        ax.plot(at.last, at.q[-1], alpha=shade, **PREDICTED)
    ax.plot([], [], label=f"{len(drift.checkpoints[0].q)} eigenvectors removed", **PREDICTED)
    ax.set(xscale="log", yscale="log", xlabel="c")


def convergence_figure(eta_lambdas: Sequence[float], lengths: Mapping[str, Tensor]) -> Figure:
    """`draw_convergence` as a figure."""
    with style.context(STYLE, after_reset=True):
        drawn = Figure(figsize=(8, 5), layout="constrained")
        ax = drawn.add_subplot()
        ax.set_title("Largest distance of the path to the flow", loc="left")
        draw_convergence(ax, eta_lambdas, lengths)
        ax.legend()
    return drawn


def draw_convergence(ax: Axes, eta_lambdas: Sequence[float], lengths: Mapping[str, Tensor]) -> None:
    """The largest distance to the flow against √(ηλ), of iterates and midpoints, with fitted exponents.

    Args:
        ax: where to draw.
        eta_lambdas: ηλ, s values.
        lengths: for each toy the result of `flow_comparison.distances`, [s, 2].
    """
    roots = [eta_lambda**0.5 for eta_lambda in eta_lambdas]
    for index, (name, pairs) in enumerate(lengths.items()):
        colour = COLOURS[index % len(COLOURS)]
        for hollow, (points, column) in enumerate(zip(ORDERS, pairs.T, strict=True)):
            label = f"{name}, {points}: (ηλ)^{exponent(eta_lambdas, column):.2f}"
            face = "white" if hollow else colour
            look: dict[str, Any] = {
                "marker": MARKERS[index],
                "markersize": 6,
                "mfc": face,
                "linestyle": DASHES[hollow],
            }
            ax.plot(roots, column, color=colour, label=label, **look)
    ax.set(xscale="log", yscale="log", xlabel="√(ηλ)", ylabel="largest distance to the flow")
    ax.set_xticks(roots, [f"{root:.2g}" for root in roots])
    ax.xaxis.set_minor_formatter(NullFormatter())
