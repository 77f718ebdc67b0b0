"""What the optimizers of the registry do on toys, and the theory's numbers for it."""

import math

import pytest
import torch

from optim_family.analysis import predictions
from optim_family.errors import UsageError
from optim_family.theory.flow import Minimisers
from optim_family.theory.toys import Parabolas, Regression, Valley, unit
from optim_family.theory.trajectory import at_the_edge, descend, midpoints, sharpness_along, swings

LR, DECAY = 0.1, 0.01


def test_gradient_descent_is_its_formula():
    toy, w = Valley(), torch.tensor([0.9, 0.7, 0.1], dtype=torch.float64)
    found = descend(toy.loss, w, 3, lr=LR, weight_decay=DECAY)
    for step in range(3):
        assert torch.allclose(found.weights[step], w, rtol=1e-15)
        assert float(found.losses[step]) == pytest.approx(float(toy.loss(w)), rel=1e-13)
        x = w.clone().requires_grad_()
        w = (1 - LR * DECAY) * w - LR * torch.autograd.grad(toy.loss(x), x)[0]
    assert torch.allclose(found.weights[3], w, rtol=1e-15)
    assert found.tau.tolist() == pytest.approx([0, 1e-3, 2e-3, 3e-3], rel=1e-12)
    norm = float(w.norm())
    assert float(found.effective_lr[3]) == pytest.approx(LR / ((1 - LR * DECAY) * norm**2), rel=1e-12)
    assert torch.allclose(found.directions[3], w / norm, atol=1e-15)


def test_any_registered_optimizer_can_go():
    found = descend(
        Parabolas().loss, torch.tensor([0.01, 1.5]).double(), 5, "rmsprop", lr=0.02, weight_decay=0.0
    )
    assert found.weights.shape == (6, 2) and found.shrink == 0
    with pytest.raises(UsageError, match="no optimizer 'gdd'"):
        descend(Parabolas().loss, torch.zeros(2), 1, "gdd")


def test_a_path_that_explodes_is_refused():
    with pytest.raises(FloatingPointError, match="gd diverged"):
        descend(lambda w: (w**4).sum(), torch.full((2,), 10.0).double(), 9, lr=1.0, weight_decay=0.0)


def test_midpoints_take_out_the_oscillation_and_swings_are_it():
    t = torch.arange(6, dtype=torch.float64)
    slow = torch.stack([0.3 * t, 1 - 0.1 * t], dim=1)  # straight, so that nothing else is taken out
    swing = torch.tensor([0.2, 0.5], dtype=torch.float64)
    points = slow + torch.where(t % 2 == 0, 1.0, -1.0)[:, None] * swing
    assert torch.allclose(midpoints(points), slow[1:-1], atol=1e-15)
    assert torch.allclose(swings(points).abs(), swing.expand(4, 2), atol=1e-15)


def test_the_edge_is_where_the_threshold_meets_the_sharpness():
    toy = Regression.make()
    q = Minimisers.through(toy.loss, toy.start()).look(toy.start()).q
    for swing in (0.0, 1.0, 3.0):
        w = at_the_edge(toy.loss, toy.start(), lr=LR, weight_decay=DECAY, swing=swing)
        effective = LR / ((1 - LR * DECAY) * float(w @ w))
        assert effective * toy.sharpness(toy.start()) == pytest.approx(2, rel=1e-12)
        off = float((unit(w) - toy.start() * float(unit(w) @ toy.start())).norm()) / float(
            unit(w) @ toy.start()
        )
        variance = predictions.oscillation_variance(LR * DECAY, q)
        assert off == pytest.approx(swing * math.sqrt(variance), rel=1e-10, abs=1e-12)


def test_the_sharpness_along_a_path_is_that_of_the_toy():
    toy = Regression.make()
    places = torch.stack([toy.minimiser(tangent) for tangent in (2.0, 1.5, 0.1)])
    expected = [toy.sharpness(place) for place in places]
    assert sharpness_along(toy.loss, 3 * places).tolist() == pytest.approx(expected, rel=1e-6)
