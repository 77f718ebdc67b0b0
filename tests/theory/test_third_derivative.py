"""Third derivatives through batch normalisation are those of differences."""

import pytest
import torch
from torch import nn

from optim_family.data.datasets import Dataset
from optim_family.theory.third_derivative import third_derivative
from optim_family.training.objective import Objective
from tests.helpers.operators_for_tests import draw


def objective():
    """A conv net with smooth activations, so that differences of derivatives are honest."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norms = [nn.BatchNorm2d(c, track_running_stats=False, eps=1e-300) for c in (3, 4)]
        layers = [
            nn.Conv2d(1, 3, 3, bias=False),
            norms[0],
            nn.Tanh(),
            nn.Conv2d(3, 4, 3, bias=False),
            norms[1],
        ]
        model = nn.Sequential(
            *layers, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        ).double()
    for module in (*norms, model[-1]):
        module.requires_grad_(False)
    images = (draw(12, 1, 7, 7) * 40 + 128).clamp(0, 255).to(torch.uint8)
    labels, one = torch.arange(12) % 3, torch.ones(1, dtype=torch.float64)
    data = Dataset("noise", images, labels, images, labels, ("a", "b", "c"), one / 2, one / 6, "")
    return Objective(model, data, ghost_batch=6)


def curvature(at, w, v):
    """vᵀ∇²L(w)v by the core's Hessian."""
    at.space.assign(w)
    return float(v @ (at.hessian() @ v))


def test_the_third_derivative_is_a_difference_of_second_ones():
    at = objective()
    w, h = at.space.weights(), 1e-5
    u, v = draw(len(w), seed=1), draw(len(w), seed=2)
    difference = (curvature(at, w + h * u, v) - curvature(at, w - h * u, v)) / (2 * h)
    at.space.assign(w)
    assert float(third_derivative(at, v) @ u) == pytest.approx(difference, rel=1e-6)


def test_along_the_weights_it_is_what_scale_invariance_demands():
    """vᵀH(cw)v = vᵀH(w)v / c²: the derivative along w is −2 times the value."""
    at = objective()
    w, v = at.space.weights(), draw(at.space.dim, seed=2)
    assert float(third_derivative(at, v) @ w) == pytest.approx(-2 * curvature(at, w, v), rel=1e-9)


def test_torchs_own_normalisation_is_wrong_here():
    """Why this module exists; nothing to complain about once torch has mended it."""
    at = objective()
    v = draw(at.space.dim, seed=2)
    right, total = third_derivative(at, v), torch.zeros_like(v)
    try:
        for chunk in at.chunk_losses():
            g = torch.autograd.grad(chunk(), at.space.tensors, create_graph=True)
            flat = torch.cat([t.reshape(-1) for t in g])
            hv = torch.autograd.grad(flat @ v, at.space.tensors, create_graph=True)
            vhv = torch.cat([t.reshape(-1) for t in hv]) @ v
            total += torch.cat([t.reshape(-1) for t in torch.autograd.grad(vhv, at.space.tensors)])
    except RuntimeError:
        return
    error = float((total - right).norm() / right.norm())
    if error < 1e-9:
        pytest.skip(f"torch {torch.__version__} has mended third derivatives through BatchNorm")
    assert error > 1e-4
