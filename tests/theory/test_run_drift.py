"""Slopes and losses of a run with a closed form."""

import json
import math

import pytest
import torch

from optim_family.analysis.predictions import log_sharpness_slope, mean_excess_loss
from optim_family.theory.run_drift import CUTS, Checkpoint, RunDrift, window

ETA_LAMBDA, Q = 1e-3, 6.0
SLOPE = -2 * Q / (4 + Q)


def made(noise=0.0):
    """S falls as the theory says for a constant q; the loss is 0.25 but for one spike far away."""
    steps = torch.arange(100, 1900, 10)
    wave = noise * torch.sin(torch.arange(len(steps), dtype=torch.float64))
    sharpness = 300 * torch.exp(SLOPE * ETA_LAMBDA * steps.double() + wave)
    loss = torch.full((2000,), 0.25)
    loss[5] = 100.0
    at = Checkpoint(1000, float(sharpness[90]), 0.9, 0.5, (9.0, Q), tuple(Q * cut for cut in CUTS))
    return RunDrift(ETA_LAMBDA, steps, sharpness, 0.9 * sharpness, loss, (at,))


def test_the_slope_is_that_of_the_logarithm():
    slope, error = made().slope(1000)
    assert slope == pytest.approx(SLOPE, rel=1e-9)
    assert error < 1e-9


def test_noise_shows_in_the_standard_error():
    slope, error = made(noise=0.01).slope(1000)
    assert 1e-4 < error < 0.1
    assert abs(slope - SLOPE) < 5 * error


def test_only_the_window_counts():
    drift = made()
    far = (drift.steps - 1000).abs() > window(ETA_LAMBDA)
    drift.sharpness[far] = 1e9
    assert drift.slope(1000)[0] == pytest.approx(SLOPE, rel=1e-9)
    assert drift.mean_loss(1000) == pytest.approx(0.25)


def test_the_window_is_two_modulation_periods_to_each_side():
    assert window(ETA_LAMBDA) == round(2 * math.pi / math.sqrt(2 * ETA_LAMBDA))


def test_a_row_holds_predictions_of_the_last_q_and_measurements():
    (row,) = made().rows()
    assert json.loads(json.dumps(row)) == row
    assert row["q"] == Q and row["tau"] == 1.0
    assert row["slope_predicted"] == pytest.approx(SLOPE)
    assert row["q_smallest_cut"] == Q * min(CUTS)
    assert row["slope_smallest_cut"] == log_sharpness_slope(Q * min(CUTS))
    assert row["loss_predicted"] == mean_excess_loss(row["sharpness"], ETA_LAMBDA, Q)
    assert row["loss_measured"] == pytest.approx(0.25)


def test_where_the_slope_is_as_predicted_both_losses_are_one():
    (row,) = made().rows()
    assert row["loss_from_slope"] == pytest.approx(row["loss_predicted"], rel=1e-8)
