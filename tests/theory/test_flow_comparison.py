"""Gradient descent agrees with the predictions on every toy, and a wrong prediction is noticed."""

import math
from dataclasses import replace

import pytest
import torch

from optim_family.analysis.predictions import modulation_period
from optim_family.theory import flow_comparison
from optim_family.theory.flow import FlowPath
from optim_family.theory.flow_comparison import SETTINGS, Comparison, compare, distances, exponent

# Short versions of the settings of the figures; the theory neglects terms of the order of √(ηλ) and less.
SHORT = {
    "regression": replace(SETTINGS["regression"], eta_lambda=1e-3, end=1.5),
    "completion": replace(SETTINGS["completion"], eta_lambda=1e-3, end=0.6),
    "valley": replace(SETTINGS["valley"], end=1.2),
}


@pytest.fixture(scope="module", params=SHORT)
def comparison(request):
    return compare(SHORT[request.param], points=12)


def off(measured, expected):
    return float((measured / expected - 1).abs().max())


def test_sharpness_variance_and_loss_are_the_predicted_ones(comparison):
    slack = 2 * math.sqrt(comparison.setting.eta_lambda)
    assert comparison.predicted["sharpness"] is comparison.flow.sharpness
    for name in ("sharpness", "variance", "loss"):
        assert off(comparison.measured[name], comparison.predicted[name]) < slack


def test_half_of_the_prediction_would_not_do(comparison):
    slack = 2 * math.sqrt(comparison.setting.eta_lambda)
    assert off(comparison.measured["variance"], comparison.predicted["variance"] / 2) > 5 * slack
    assert off(comparison.measured["loss"], 2 * comparison.predicted["loss"]) > 5 * slack


def test_the_modulation_has_its_period(comparison):
    assert comparison.period == pytest.approx(modulation_period(comparison.setting.eta_lambda), rel=0.05)


def test_the_iterates_are_an_amplitude_away_from_the_flow_and_the_midpoints_much_less(comparison):
    amplitude = comparison.predicted["variance"].max().sqrt()
    iterates, middles = comparison.distances.T
    assert iterates.max() < 1.5 * amplitude
    assert middles.max() < 0.5 * amplitude


def test_the_distance_to_the_flow_shrinks_with_the_root_of_the_decay():
    eta_lambdas = (4e-3, 1e-3)
    lengths = distances(replace(SETTINGS["valley"], end=0.5), eta_lambdas, points=20)
    iterates, middles = lengths.T
    assert exponent(eta_lambdas, iterates) == pytest.approx(0.5, abs=0.05)
    assert exponent(eta_lambdas, middles) == pytest.approx(1.0, abs=0.15)


def test_a_slower_flow_would_not_be_followed(monkeypatch):
    """With half the speed the distance stops shrinking: this is what the exponent is for."""
    right = flow_comparison.integrate
    monkeypatch.setattr(flow_comparison, "integrate", lambda loss, start, tau: right(loss, start, tau / 2))
    eta_lambdas = (4e-3, 1e-3)
    _, middles = distances(replace(SETTINGS["valley"], end=0.5), eta_lambdas, points=20).T
    assert abs(exponent(eta_lambdas, middles)) < 0.2


def test_the_exponent_is_that_of_a_power():
    eta_lambdas = (1e-2, 3e-3, 1e-5)
    lengths = 7 * torch.tensor(eta_lambdas, dtype=torch.float64) ** 0.7
    assert exponent(eta_lambdas, lengths) == pytest.approx(0.7, rel=1e-10)


def test_the_period_is_that_of_a_sine():
    t = torch.arange(200, dtype=torch.float64)
    wave = torch.sin(2 * math.pi * t / 33.3 + 1)
    nothing = torch.zeros(1)
    comparison = Comparison(SETTINGS["valley"], FlowPath(*[nothing] * 4), {}, {}, nothing, modulation=wave)
    assert comparison.period == pytest.approx(33.3, rel=1e-3)
    assert math.isnan(replace(comparison, modulation=wave[:20]).period)
