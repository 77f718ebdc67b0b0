"""Figures of gradient descent and the flow against τ, and of the distance between them."""

import math
from collections.abc import Mapping, Sequence
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
from optim_family.theory.flow_comparison import Comparison, exponent
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
    with style.context(STYLE, after_reset=True):
        drawn = Figure(figsize=(11, 6.6), layout="constrained")
        setting = comparison.setting
        drawn.suptitle(
            f"{title}; gradient descent, η = {setting.lr:g}, ηλ = {setting.eta_lambda:g}",
            x=0.01,
            ha="left",
            fontweight="bold",
        )
        axes = drawn.subplots(2, 2)
        _draw_comparison(
            axes[0, 0],
            comparison,
            comparison.sharpness,
            comparison.flow.sharpness,
            "Spherical sharpness S",
            "flow",
        )
        variance = "Variance of the oscillation a²"
        _draw_comparison(
            axes[0, 1],
            comparison,
            comparison.variance,
            comparison.expected_variance,
            variance,
            "2ηλ / (4 + q)",
        )
        loss = "Loss, mean over two modulation periods"
        _draw_comparison(
            axes[1, 0], comparison, comparison.loss, comparison.expected_loss, loss, "S ηλ / (4 + q)"
        )
        _draw_modulation(axes[1, 1], comparison)
    return drawn


def _draw_comparison(
    ax: Axes, comparison: Comparison, measured: Tensor, expected: Tensor, title: str, formula: str
) -> None:
    ax.set_title(title, loc="left")
    ax.plot(comparison.flow.tau, measured, **MEASURED)
    ax.plot(comparison.flow.tau, expected, **EXPECTED, label=formula)
    ax.set_yscale("log")
    low, high = (
        min(float(expected.min()), float(measured.min())),
        max(float(expected.max()), float(measured.max())),
    )
    ax.set_ylim(low / 1.2, high * 1.2)  # so that agreement to one per cent looks like it
    plain_ticks(ax, math.log10(1.44 * high / low))
    ax.set_xlabel("τ = ηλt")
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
    with style.context(STYLE, after_reset=True):
        drawn = Figure(figsize=(11, 6.6), layout="constrained")
        drawn.suptitle(title, x=0.01, ha="left", fontweight="bold")
        axes = drawn.subplots(2, 2)
        _draw_sharpness(axes[0, 0], drift)
        _draw_slopes(axes[0, 1], drift)
        _draw_mean_loss(axes[1, 0], drift)
        _draw_removed(axes[1, 1], drift)
        for ax in axes.flat[:3]:
            ax.set_xlabel("τ = ηλt")
    return drawn


def _draw_sharpness(ax: Axes, drift: RunDrift) -> None:
    tau = drift.eta_lambda * drift.steps
    floor = [sharpness_floor(float(drift.sharpness[0]), float(t - tau[0])) for t in tau]
    ax.set_title("Spherical sharpness", loc="left")
    ax.plot(tau, drift.sharpness, color=COLOURS[0], linewidth=1.0, label="S at midpoints")
    ax.plot(tau, drift.threshold, color=COLOURS[1], linestyle=":", linewidth=1.6, label="threshold 2/ℓ")
    ax.plot(tau, floor, label="steepest drift, $e^{-2τ}$", **FLOOR)
    ax.set(yscale="log", ylim=(float(drift.sharpness.min()) / 1.5, float(drift.sharpness.max()) * 1.2))
    plain_ticks(ax, 1.0)
    ax.legend()


def _draw_slopes(ax: Axes, drift: RunDrift) -> None:
    rows = drift.rows()
    tau = [row["tau"] for row in rows]
    measured, errors = [row["slope_measured"] for row in rows], [row["slope_error"] for row in rows]
    ax.set_title("Slope d log S / dτ", loc="left")
    ax.errorbar(tau, measured, errors, **{**MEASURED, "label": "measured, ± standard error"})
    label = f"−2q / (4 + q), {len(drift.checkpoints[0].q)} eigenvectors removed"
    ax.plot(tau, [row["slope_predicted"] for row in rows], label=label, **PREDICTED)
    label = f"the same, |curvature| below {CUTS[-1]:g} λ₁"
    ax.plot(tau, [row["slope_smallest_cut"] for row in rows], label=label, **CUT)
    ax.axhline(-2, label="steepest drift", **FLOOR)
    ax.set_ylim(-2.3, 0.3)
    ax.legend(loc="center right")


def _draw_mean_loss(ax: Axes, drift: RunDrift) -> None:
    rows = drift.rows()
    tau = [row["tau"] for row in rows]
    ax.set_title("Mean training loss", loc="left")
    ax.plot(tau, [row["loss_measured"] for row in rows], **{**MEASURED, "label": "measured"})
    ax.plot(tau, [row["loss_predicted"] for row in rows], label="S ηλ / (4 + q)", **PREDICTED)
    by_slope = [row["loss_from_slope"] for row in rows]
    ax.plot(tau, by_slope, color="black", label="S ηλ (2 + s) / 8, s the measured slope")
    ax.plot(
        tau, [mean_excess_loss(row["sharpness"], drift.eta_lambda) for row in rows], label="S ηλ / 4", **FLOOR
    )
    ax.set_yscale("log")
    ax.legend()


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
    ax.set(xscale="log", yscale="log")
    ax.set_xlabel("c")
    ax.legend()


def convergence_figure(eta_lambdas: Sequence[float], lengths: Mapping[str, Tensor]) -> Figure:
    """The largest distance to the flow against √(ηλ), of iterates and midpoints.

    Args:
        eta_lambdas: ηλ, s values.
        lengths: for each toy the result of `flow_comparison.distances`, [s, 2].
    """
    with style.context(STYLE, after_reset=True):
        drawn = Figure(figsize=(8, 5), layout="constrained")
        ax = drawn.add_subplot()
        ax.set_title("Largest distance of the path to the flow", loc="left")
        roots = [eta_lambda**0.5 for eta_lambda in eta_lambdas]
        for index, (name, pairs) in enumerate(lengths.items()):
            for column, points in enumerate(("iterates", "midpoints")):
                power = exponent(eta_lambdas, pairs[:, column])
                ax.plot(
                    roots,
                    pairs[:, column],
                    label=f"{name}, {points}: (ηλ)^{power:.2f}",
                    **_style(index, column),
                )
        ax.set(xscale="log", yscale="log", xlabel="√(ηλ)")
        ax.set_xticks(roots, [f"{root:.2g}" for root in roots])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.legend()
    return drawn


def _style(index: int, hollow: int) -> dict[str, Any]:
    colour = COLOURS[index % len(COLOURS)]
    face = "white" if hollow else colour
    return {
        "color": colour,
        "linestyle": DASHES[hollow],
        "marker": MARKERS[index],
        "mfc": face,
        "markersize": 6,
    }
