"""The figures show predicted and measured numbers."""

import numpy as np
import pytest
import torch

from optim_family.analysis.predictions import modulation_period, steepest_drift
from optim_family.theory import flow_figures
from optim_family.theory.flow import FlowPath
from optim_family.theory.flow_comparison import SETTINGS, Comparison
from optim_family.theory.run_drift import CUTS, Checkpoint, RunDrift

TAU = torch.linspace(0, 2, 9, dtype=torch.float64)
PERIOD = modulation_period(SETTINGS["valley"].eta_lambda)


def falling(rate, noise=0.0):
    return torch.exp(-rate * TAU) * (1 + noise * torch.cos(7 * TAU))


@pytest.fixture
def comparison():
    flow = FlowPath(TAU, torch.zeros(9, 3), falling(1.0), falling(2.0))
    wave = torch.cos(2 * torch.pi * torch.arange(400, dtype=torch.float64) / PERIOD)
    measured = {"sharpness": falling(1.0, 0.01), "variance": falling(0.5), "loss": falling(0.4)}
    predicted = {"sharpness": flow.sharpness, "variance": falling(0.6), "loss": falling(0.3)}
    return Comparison(SETTINGS["valley"], flow, measured, predicted, torch.zeros(9, 2), modulation=wave)


@pytest.fixture
def drift():
    steps = torch.arange(100, 1900, 10)
    sharpness = 300 * torch.exp(-1e-3 * steps.double())
    q, below = tuple(30.0 / k for k in range(1, 6)), tuple(20 * cut for cut in CUTS)
    checkpoints = [Checkpoint(t, 300.0, 0.9, 0.5, q, below) for t in (500, 1000, 1500)]
    return RunDrift(1e-3, steps, sharpness, 0.9 * sharpness, torch.full((2000,), 0.1), tuple(checkpoints))


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_a_toy_is_shown_with_what_was_measured_and_what_was_predicted(comparison):
    axes = flow_figures.toy_figure(comparison, "a toy").axes
    formulas = {"sharpness": "flow", "variance": "2ηλ / (4 + q)", "loss": "S ηλ / (4 + q)"}
    for ax, (name, formula) in zip(axes, formulas.items(), strict=False):
        drawn = lines(ax)
        assert np.array_equal(drawn["gradient descent"].get_ydata(), comparison.measured[name])
        assert np.array_equal(drawn[formula].get_ydata(), comparison.predicted[name])


def test_an_agreement_to_a_per_cent_looks_like_one(comparison):
    low, high = flow_figures.toy_figure(comparison, "a toy").axes[0].get_ylim()
    assert high / low > 1.4 * float(comparison.flow.sharpness.max() / comparison.flow.sharpness.min())


def test_the_modulation_has_lines_at_the_predicted_period(comparison):
    ax = flow_figures.toy_figure(comparison, "a toy").axes[3]
    dotted = [line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert np.allclose(np.diff(dotted), PERIOD)
    (label,) = [label for label in lines(ax) if "measured" in label]
    assert f"{PERIOD:.1f} steps; measured {comparison.period:.1f}" in label


def test_the_exponents_stand_in_the_legend():
    eta_lambdas = (1e-2, 1e-3, 1e-4)
    powers = torch.tensor(eta_lambdas, dtype=torch.float64)[:, None] ** torch.tensor([0.5, 1.0])
    (ax,) = flow_figures.convergence_figure(eta_lambdas, {"toy": powers}).axes
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["toy, iterates: (ηλ)^0.50", "toy, midpoints: (ηλ)^1.00"]
    assert np.allclose(ax.get_lines()[0].get_ydata(), ax.get_lines()[0].get_xdata())


def test_a_run_is_shown_with_its_bound_its_slopes_and_its_losses(drift):
    fall, slopes, loss, removed = flow_figures.network_figure(drift, "a run").axes
    floor = lines(fall)["steepest drift, $e^{-2τ}$"].get_ydata()
    assert floor[-1] == pytest.approx(steepest_drift(float(drift.sharpness[0]), 1.79), rel=1e-6)
    assert np.array_equal(lines(fall)["S at midpoints"].get_ydata(), drift.sharpness)
    rows = drift.rows()
    predicted = lines(slopes)["−2q / (4 + q), 5 eigenvectors removed"].get_ydata()
    assert list(predicted) == [row["slope_predicted"] for row in rows]
    assert list(lines(loss)["measured"].get_ydata()) == [row["loss_measured"] for row in rows]
    curves = [list(line.get_ydata()) for line in removed.get_lines() if len(line.get_xdata()) == len(CUTS)]
    assert curves == [list(at.below) for at in drift.checkpoints]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in removed.get_lines()[1:-1:2]]
    assert points == [(at.last, at.q[-1]) for at in drift.checkpoints]
