"""The closed forms fit together; `test_trajectory` and the figures compare them with gradient descent."""

import math

import pytest

from optim_family.analysis import predictions

SHRINK = 2e-4
every_q = pytest.mark.parametrize("q", [0.0, 0.3, 5.0, 1e9])


@every_q
def test_the_mean_loss_is_that_of_the_oscillation_in_the_quadratic(q):
    """L = ½ S a²."""
    energy = 0.5 * 70.0 * predictions.oscillation_variance(SHRINK, q)
    assert predictions.mean_excess_loss(70.0, SHRINK, q) == pytest.approx(energy, rel=1e-15)


@every_q
def test_decay_and_oscillation_balance(q):
    """Over a step ρ² loses 2ηλ ρ² and wins η² ‖g‖² = η² S² a² / ρ²; at ℓS = 2 the win is 4a² ρ².

    The difference is the change of log 2/ℓ, which is that of log S.
    """
    change = -2 * SHRINK + 4 * predictions.oscillation_variance(SHRINK, q)
    assert SHRINK * predictions.log_sharpness_slope(q) == pytest.approx(change, rel=1e-12, abs=1e-18)


def test_no_slope_is_steeper_than_the_floor():
    steepest = predictions.log_sharpness_slope(1e12)
    assert math.log(predictions.steepest_drift(1.0, 1e-3)) / 1e-3 == pytest.approx(steepest, rel=1e-9)


def test_the_modulation_is_that_of_the_averaged_motion():
    """u = log ℓS/2, b = log a²: u' = 2ηλ − (4 + q) a², b' = 2 (ℓS − 2); linear around rest, ω² = 8ηλ."""
    q = 3.0
    variance = predictions.oscillation_variance(SHRINK, q)
    omega = math.sqrt((4 + q) * variance * 2 * 2)
    assert predictions.modulation_period(SHRINK) == pytest.approx(2 * math.pi / omega, rel=1e-12)


def test_no_modulation_without_weight_decay():
    with pytest.raises(ValueError, match="weight decay"):
        predictions.modulation_period(0.0)
