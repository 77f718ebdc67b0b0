"""Quantities along an update against their closed forms on quadratics and on a network."""

import math

import pytest
import torch

from optim_family.sharpness.along_update import along_update, critical_rate
from optim_family.space import ParameterSpace
from tests.helpers.operators_for_tests import draw, rotated

D, LR = 12, 0.1
H = rotated([9.0, 7.0, 4.0, 2.0, *[0.5] * (D - 4)])


def quadratic(start, dtype=torch.float64):
    w = start.clone().to(dtype).requires_grad_()
    matrix = H.to(dtype)
    return [lambda: 0.25 * (w @ matrix @ w), lambda: 0.25 * (w @ matrix @ w)], ParameterSpace({"w": w})


def measured(delta, dtype=torch.float64, lr=LR, **options):
    start = draw(D)
    losses, space = quadratic(start, dtype)
    weights = space.weights()
    found = along_update(losses, space, weights, weights - lr * delta.to(dtype), lr, **options)
    assert torch.equal(space.weights(), weights)
    return found, H @ start


@pytest.mark.parametrize("seed", range(5))
def test_on_a_quadratic_all_have_closed_forms(seed):
    delta = draw(D, seed=seed + 50)
    delta = delta if float(delta @ H @ draw(D)) > 0 else -delta
    found, gradient = measured(delta)
    bend, length = float(delta @ H @ delta), float(delta @ delta)
    assert found.curvature == pytest.approx(bend / length, rel=1e-12)
    assert found.smoothness == pytest.approx(bend / length, rel=1e-9)
    assert found.critical == pytest.approx(bend / float(gradient @ delta), rel=0.01)
    assert found.critical_ratio == pytest.approx(found.critical * LR / 2)
    assert (found.smoothness_ratio < 1) == (found.loss_change < 0) == (found.critical_ratio < 1)


def test_forward_passes_alone_take_no_second_derivative():
    found, _ = measured(H @ draw(D), curvature=False)
    assert found.curvature is None and found.critical > 0
    assert found.forward_passes <= 14


def test_the_rotation_is_the_angle_to_the_last_digits():
    w, turn = draw(D), 1e-7
    losses, space = quadratic(w)
    across = draw(D, seed=3)
    across -= (across @ w) / (w @ w) * w
    after = math.cos(turn) * w + math.sin(turn) * across * (w.norm() / across.norm())
    assert along_update(losses, space, w, after, LR).rotation == pytest.approx(turn, rel=1e-6)


def test_an_update_uphill_has_no_critical_rate():
    found, _ = measured(-(H @ draw(D)))
    assert found.critical is None and found.smoothness_ratio is None and found.loss_change > 0


def test_a_loss_that_never_rises_has_no_critical_rate():
    assert critical_rate(lambda rate: -rate, 1.0, 0.0)[0] is None
    assert critical_rate(lambda rate: 1.0 if rate else 0.0, 1.0, 0.0)[0] is None


@pytest.mark.parametrize("critical", [1e-6, 0.3, 1.0, 70.0])
def test_the_critical_rate_is_found_from_any_start(critical):
    rate, _ = critical_rate(lambda rate: rate * (rate - critical), 1.0, 0.0)
    assert rate == pytest.approx(critical, rel=0.01)
    assert critical_rate(lambda rate: math.nan if rate > critical else -1.0, 1.0, 0.0)[0] == pytest.approx(
        critical, rel=0.01
    )


def test_rounding_hides_a_smoothness_instead_of_inventing_one():
    found, _ = measured(1e-3 * H @ draw(D), torch.float32, lr=1e-3)
    assert found.smoothness is None and found.smoothness_ratio is None


def test_mistakes_have_one_line():
    with pytest.raises(ValueError, match="did not move"):
        measured(torch.zeros(D, dtype=torch.float64))
    losses, space = quadratic(draw(D))
    with pytest.raises(ValueError, match="above 0"):
        along_update(losses, space, draw(D), draw(D, seed=1), 0.0)
