"""Norms of torch's and timm's optimizers, against the members of the family that they are."""

import math

import pytest
import torch
from timm.optim.lion import Lion

from optim_family import testing
from optim_family.geometry import UnknownMetric
from optim_family.norms import MaxNorm, SpectralNorm
from optim_family.optimizers.external.inferred_geometry import geometry
from optim_family.optimizers.external.wrapper import wrap_external
from tests.helpers.operators_for_tests import draw


def matrices(*shapes):
    return [draw(*shape, seed=index).requires_grad_() for index, shape in enumerate(shapes)]


def test_lion_without_momentum_is_sign_descent():
    found = geometry(Lion(matrices((4, 3), (5,)), lr=0.1, betas=(0.0, 0.9), weight_decay=0.2))
    assert isinstance(found.norm, MaxNorm) and found.norm.dim == 17 and found.normalized and found.orbit
    assert found.threshold == pytest.approx((2 - 0.02) / 0.1) and found.decay.shrink == pytest.approx(0.02)


def test_with_momentum_there_is_a_norm_and_no_threshold():
    for optimizer in (Lion(matrices((4, 3)), lr=0.1), torch.optim.Muon(matrices((4, 3)), lr=0.1)):
        found = geometry(optimizer)
        assert found.norm is not None and math.isinf(found.threshold) and "momentum" in found.no_threshold


@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw", "spectral_unclamped"])
@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_muons_radius_is_that_of_a_real_step(adjust, shape):
    (w,) = matrices(shape)
    optimizer = torch.optim.Muon([w], lr=0.1, momentum=0.0, weight_decay=0.0, adjust_lr_fn=adjust)
    w.grad, before = draw(*shape, seed=9), w.detach().clone()
    found = geometry(optimizer)
    optimizer.step()
    step = (before - w.detach()).flatten()
    assert isinstance(found.norm, SpectralNorm) and found.threshold == pytest.approx(2 / 0.1)
    assert abs(found.norm.value(step) / 0.1 - 1) < found.inexact
    gain = float(w.grad.flatten() @ step) / (0.1 * found.norm.dual(w.grad.flatten()))
    assert abs(gain - 1) < found.inexact


@pytest.mark.parametrize(
    "make",
    [
        lambda w: Lion([{"params": [w[0]]}, {"params": [w[1]], "lr": 0.2}], lr=0.1),
        lambda w: Lion(w, caution=True),
        lambda w: Lion(w, maximize=True),
        lambda w: torch.optim.Muon(w, ns_steps=2),
    ],
    ids=["two groups", "cautious", "maximising", "two Newton-Schulz steps"],
)
def test_other_settings_have_no_norm(make):
    found = geometry(make(matrices((4, 3), (2, 3))))
    assert found.norm is None and isinstance(found.metric, UnknownMetric)


@pytest.mark.parametrize("name", ["torch:Muon", "timm:lion"])
def test_the_real_class_passes_the_checks_of_norms(name):
    optimizer = wrap_external(name)
    assert "error" in testing.check_step_is_the_maximiser(optimizer)
    assert "error" in testing.check_norm_and_dual_belong_together(optimizer)
