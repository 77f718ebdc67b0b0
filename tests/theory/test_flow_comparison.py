"""Gradient descent keeps to the theory's numbers on every toy, and a wrong number would show."""

import math
from dataclasses import replace

import pytest
import torch

from optim_family.analysis.predictions import modulation_period
from optim_family.theory import flow_comparison
from optim_family.theory.flow import Path
from optim_family.theory.flow_comparison import SETTINGS, Comparison, compare, distances, exponent

# Short versions of the settings of the figures; what the theory leaves out is of the order of √(ηλ) and less.
SHORT = {
    "regression": replace(SETTINGS["regression"], shrink=1e-3, end=1.5),
    "completion": replace(SETTINGS["completion"], shrink=1e-3, end=0.6),
    "valley": replace(SETTINGS["valley"], end=1.2),
}


@pytest.fixture(scope="module", params=SHORT)
def found(request):
    return compare(SHORT[request.param], places=12)


def off(measured, expected):
    return float((measured / expected - 1).abs().max())


def test_sharpness_variance_and_loss_are_the_predicted_ones(found):
    slack = 2 * math.sqrt(found.setting.shrink)
    assert off(found.sharpness, found.flow.sharpness) < slack
    assert off(found.variance, found.expected_variance) < slack
    assert off(found.loss, found.expected_loss) < slack


def test_half_of_the_prediction_would_not_do(found):
    slack = 2 * math.sqrt(found.setting.shrink)
    assert off(found.variance, found.expected_variance / 2) > 5 * slack
    assert off(found.loss, 2 * found.expected_loss) > 5 * slack


def test_the_modulation_has_its_period(found):
    assert found.period == pytest.approx(modulation_period(found.setting.shrink), rel=0.05)


def test_the_iterates_are_a_swing_away_from_the_flow_and_the_midpoints_much_less(found):
    swing = found.expected_variance.max().sqrt()
    assert found.distance.max() < 1.5 * swing
    assert found.middle_distance.max() < 0.5 * swing


def test_the_distance_to_the_flow_shrinks_with_the_root_of_the_decay():
    shrinks = (4e-3, 1e-3)
    lengths = distances(replace(SETTINGS["valley"], end=0.5), shrinks, places=20)
    iterates, middles = lengths.T
    assert exponent(shrinks, iterates) == pytest.approx(0.5, abs=0.05)
    assert exponent(shrinks, middles) == pytest.approx(1.0, abs=0.15)


def test_a_slower_flow_would_not_be_followed(monkeypatch):
    """With half the speed the distance stops shrinking: this is what the exponent is for."""
    right = flow_comparison.integrate
    monkeypatch.setattr(flow_comparison, "integrate", lambda loss, start, tau: right(loss, start, tau / 2))
    shrinks = (4e-3, 1e-3)
    _, middles = distances(replace(SETTINGS["valley"], end=0.5), shrinks, places=20).T
    assert abs(exponent(shrinks, middles)) < 0.2


def test_the_exponent_is_that_of_a_power():
    shrinks = (1e-2, 3e-3, 1e-5)
    lengths = 7 * torch.tensor(shrinks, dtype=torch.float64) ** 0.7
    assert exponent(shrinks, lengths) == pytest.approx(0.7, rel=1e-10)


def test_the_period_is_that_of_a_sine():
    t = torch.arange(200, dtype=torch.float64)
    wave = torch.sin(2 * math.pi * t / 33.3 + 1)
    nothing = torch.zeros(1)
    found = Comparison(SETTINGS["valley"], Path(*[nothing] * 4), *[nothing] * 5, modulation=wave)
    assert found.period == pytest.approx(33.3, rel=1e-3)
    assert math.isnan(replace(found, modulation=wave[:20]).period)
