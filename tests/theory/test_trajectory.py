"""Paths of registered optimizers on toys, compared with formulas and with the predictions."""

import math

import pytest
import torch

from optim_family.analysis import predictions
from optim_family.errors import UsageError
from optim_family.theory.flow import MinimizerManifold
from optim_family.theory.toys import Parabolas, Regression, Valley, unit
from optim_family.theory.trajectory import (
    midpoints,
    oscillation,
    record_trajectory,
    sharpness_along,
    start_at_edge,
)

LR, DECAY = 0.1, 0.01


def test_gradient_descent_is_its_formula():
    toy, w = Valley(), torch.tensor([0.9, 0.7, 0.1], dtype=torch.float64)
    path = record_trajectory(toy.loss, w, 3, lr=LR, weight_decay=DECAY)
    for step in range(3):
        assert torch.allclose(path.weights[step], w, rtol=1e-15)
        assert float(path.losses[step]) == pytest.approx(float(toy.loss(w)), rel=1e-13)
        x = w.clone().requires_grad_()
        w = (1 - LR * DECAY) * w - LR * torch.autograd.grad(toy.loss(x), x)[0]
    assert torch.allclose(path.weights[3], w, rtol=1e-15)
    assert path.tau.tolist() == pytest.approx([0, 1e-3, 2e-3, 3e-3], rel=1e-12)
    norm = float(w.norm())
    assert float(path.effective_lr[3]) == pytest.approx(LR / ((1 - LR * DECAY) * norm**2), rel=1e-12)
    assert torch.allclose(path.directions[3], w / norm, atol=1e-15)


def test_any_registered_optimizer_can_be_recorded():
    path = record_trajectory(
        Parabolas().loss, torch.tensor([0.01, 1.5]).double(), 5, "rmsprop", lr=0.02, weight_decay=0.0
    )
    assert path.weights.shape == (6, 2) and path.eta_lambda == 0
    with pytest.raises(UsageError, match="no optimizer 'gdd'"):
        record_trajectory(Parabolas().loss, torch.zeros(2), 1, "gdd")


def test_a_diverging_path_is_refused():
    with pytest.raises(FloatingPointError, match="gd diverged"):
        record_trajectory(
            lambda w: (w**4).sum(), torch.full((2,), 10.0).double(), 9, lr=1.0, weight_decay=0.0
        )


def test_midpoints_remove_the_oscillation_which_is_the_rest():
    t = torch.arange(6, dtype=torch.float64)
    slow = torch.stack([0.3 * t, 1 - 0.1 * t], dim=1)  # straight, so that nothing else is removed
    amplitude = torch.tensor([0.2, 0.5], dtype=torch.float64)
    points = slow + torch.where(t % 2 == 0, 1.0, -1.0)[:, None] * amplitude
    assert torch.allclose(midpoints(points), slow[1:-1], atol=1e-15)
    assert torch.allclose(oscillation(points).abs(), amplitude.expand(4, 2), atol=1e-15)


def test_the_edge_is_where_the_threshold_meets_the_sharpness():
    toy = Regression.make()
    q = MinimizerManifold.through(toy.loss, toy.start()).at(toy.start()).q
    for amplitude in (0.0, 1.0, 3.0):
        w = start_at_edge(toy.loss, toy.start(), lr=LR, weight_decay=DECAY, amplitude=amplitude)
        effective = LR / ((1 - LR * DECAY) * float(w @ w))
        assert effective * toy.sharpness(toy.start()) == pytest.approx(2, rel=1e-12)
        off = float((unit(w) - toy.start() * float(unit(w) @ toy.start())).norm()) / float(
            unit(w) @ toy.start()
        )
        variance = predictions.oscillation_variance(LR * DECAY, q)
        assert off == pytest.approx(amplitude * math.sqrt(variance), rel=1e-10, abs=1e-12)


def test_the_sharpness_along_a_path_is_that_of_the_toy():
    toy = Regression.make()
    points = torch.stack([toy.minimiser(tangent) for tangent in (2.0, 1.5, 0.1)])
    expected = [toy.sharpness(place) for place in points]
    assert sharpness_along(toy.loss, 3 * points).tolist() == pytest.approx(expected, rel=1e-6)
