"""Figures of gradient descent and the flow against τ, and of the distance between them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from optim_family.analysis.predictions import mean_excess_loss, modulation_period, steepest_drift
from optim_family.figures.curves import plain_ticks
from optim_family.figures.style import COLOURS, DASHES, GREY, MARKERS, applied
from optim_family.theory.flow_comparison import ORDERS, Comparison, exponent
from optim_family.theory.run_drift import CUTS, RunDrift

MEASURED: Final[dict[str, Any]] = {"color": COLOURS[0], "linestyle": "", "marker": "o", "markersize": 3.5}
PREDICTED: Final[dict[str, Any]] = {"color": COLOURS[1], "linestyle": "", "marker": "s", "mfc": "none"}
CUT: Final[dict[str, Any]] = {"color": COLOURS[2], "linestyle": "", "marker": "D", "markersize": 4}
BOUND: Final[dict[str, Any]] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (5, 2))}
PREDICTED_CURVE: Final[dict[str, Any]] = {"color": "black", "linewidth": 1.2}
# Heading, and formula of the prediction.
PANELS: Final = {
    "sharpness": ("Spherical sharpness S", "flow"),
    "variance": ("Variance of the oscillation a²", "2ηλ / (4 + q)"),
    "loss": ("Loss, mean over two modulation periods", "S ηλ / (4 + q)"),
}


def toy_figure(comparison: Comparison, title: str) -> Figure:
    """Sharpness, oscillation and loss against τ, and the modulation against steps."""
    setting, flow = comparison.setting, comparison.flow
    title = f"{title}; gradient descent, η = {setting.lr:g}, ηλ = {setting.eta_lambda:g}"
    with _four_panels(title) as (figure, axes):
        for ax, (name, (heading, formula)) in zip(axes, PANELS.items(), strict=False):
            measured, predicted = comparison.measured[name], comparison.predicted[name]
            ax.set_title(heading, loc="left")
            ax.plot(flow.tau, measured, label="gradient descent", **MEASURED)
            ax.plot(flow.tau, predicted, label=formula, **PREDICTED_CURVE)
            both = torch.cat([predicted, measured])
            low, high = float(both.min()), float(both.max())
            # Wide limits, so that agreement to one per cent looks like it.
            ax.set(yscale="log", ylim=(low / 1.2, high * 1.2), xlabel="τ = ηλt")
            plain_ticks(ax, math.log10(1.44 * high / low))
            ax.legend()
        _draw_modulation(axes[3], comparison)
    return figure


@contextmanager
def _four_panels(title: str) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of four panels, in the style of all figures."""
    with applied():
        figure = Figure(figsize=(11, 6.6), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        yield figure, list(figure.subplots(2, 2).flat)


def _draw_modulation(ax: Axes, comparison: Comparison) -> None:
    """log of a² over its prediction, from too wide an oscillation, and lines at the predicted period."""
    period = modulation_period(comparison.setting.eta_lambda)
    steps = range(1, len(comparison.modulation) + 1)
    ax.set_title("Modulation: log a² / expected, from too wide an oscillation", loc="left")
    ax.plot(steps, comparison.modulation, color=COLOURS[0])
    ax.axhline(0, color=GREY, linewidth=0.8)
    first = (
        comparison.rises[0] + 2 if comparison.rises else 0
    )  # the step after a² rises through its prediction
    label = f"every π / √(2ηλ) = {period:.1f} steps; measured {comparison.period:.1f}"
    for count in range(int((len(steps) - first) / period) + 1):
        ax.axvline(
            first + count * period, label=label if not count else None, **PREDICTED_CURVE, linestyle=":"
        )
    ax.set_ylim(top=ax.get_ylim()[1] * 1.5)  # room for the legend
    ax.set_xlabel("step")
    ax.legend(loc="upper right")


def network_figure(drift: RunDrift, title: str) -> Figure:
    """A run past its edge: S, its slope, the mean loss, and q by its cut-off."""
    panels = _draw_sharpness, _draw_slopes, _draw_mean_loss, _draw_removed
    with _four_panels(title) as (figure, axes):
        for ax, draw in zip(axes, panels, strict=True):
            draw(ax, drift)
            ax.legend(loc="center right" if draw is _draw_slopes else "best")
    return figure


def _draw_sharpness(ax: Axes, drift: RunDrift) -> None:
    tau = drift.eta_lambda * drift.steps
    steepest = [steepest_drift(float(drift.sharpness[0]), float(t - tau[0])) for t in tau]
    ax.set_title("Spherical sharpness", loc="left")
    ax.plot(tau, drift.sharpness, color=COLOURS[0], linewidth=1.0, label="S at midpoints")
    ax.plot(tau, drift.threshold, color=COLOURS[1], linestyle=":", linewidth=1.6, label="threshold 2/ℓ")
    ax.plot(tau, steepest, label="steepest drift, $e^{-2τ}$", **BOUND)
    limits = float(drift.sharpness.min()) / 1.5, float(drift.sharpness.max()) * 1.2
    ax.set(yscale="log", ylim=limits, xlabel="τ = ηλt")
    plain_ticks(ax, 1.0)


def _draw_slopes(ax: Axes, drift: RunDrift) -> None:
    columns = _columns(drift)
    ax.set_title("Slope d log S / dτ", loc="left")
    slopes = columns["slope_measured"], columns["slope_error"]
    ax.errorbar(columns["tau"], *slopes, label="measured, ± standard error", **MEASURED)
    label = f"−2q / (4 + q), {len(drift.checkpoints[0].q)} eigenvectors removed"
    ax.plot(columns["tau"], columns["slope_predicted"], label=label, **PREDICTED)
    label = f"the same, |curvature| below {CUTS[-1]:g} λ₁"
    ax.plot(columns["tau"], columns["slope_smallest_cut"], label=label, **CUT)
    ax.axhline(-2, label="steepest drift", **BOUND)
    ax.set(ylim=(-2.3, 0.3), xlabel="τ = ηλt")


def _draw_mean_loss(ax: Axes, drift: RunDrift) -> None:
    columns = _columns(drift)
    ax.set_title("Mean training loss", loc="left")
    ax.plot(columns["tau"], columns["loss_measured"], label="measured", **MEASURED)
    ax.plot(columns["tau"], columns["loss_predicted"], label="S ηλ / (4 + q)", **PREDICTED)
    label = "S ηλ (2 + s) / 8, s the measured slope"
    ax.plot(columns["tau"], columns["loss_from_slope"], color="black", label=label)
    largest = [mean_excess_loss(sharpness, drift.eta_lambda) for sharpness in columns["sharpness"]]
    ax.plot(columns["tau"], largest, label="S ηλ / 4", **BOUND)
    ax.set(yscale="log", xlabel="τ = ηλt")


def _columns(drift: RunDrift) -> dict[str, list[float]]:
    """`drift.rows()` by column."""
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
    with applied():
        figure = Figure(figsize=(8, 5), layout="constrained")
        ax = figure.add_subplot()
        ax.set_title("Largest distance of the path to the flow", loc="left")
        draw_convergence(ax, eta_lambdas, lengths)
        ax.legend()
    return figure


def draw_convergence(ax: Axes, eta_lambdas: Sequence[float], lengths: Mapping[str, Tensor]) -> None:
    """Plot the `distances` of toys by name, [s, 2] each, against √(ηλ), with fitted exponents."""
    roots = [eta_lambda**0.5 for eta_lambda in eta_lambdas]
    for index, (name, pairs) in enumerate(lengths.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index]
        for points, column, dashes, face in zip(ORDERS, pairs.T, DASHES[:2], (colour, "white"), strict=True):
            label = f"{name}, {points}: (ηλ)^{exponent(eta_lambdas, column):.2f}"
            style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 6, "mfc": face}
            ax.plot(roots, column, label=label, linestyle=dashes, **style)
    ax.set(xscale="log", yscale="log", xlabel="√(ηλ)", ylabel="largest distance to the flow")
    ax.set_xticks(roots, [f"{root:.2g}" for root in roots])
    ax.xaxis.set_minor_formatter(NullFormatter())
