"""The suite passes for the family and catches planted defects, each by the check that is for it."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from optim_family import registry, testing
from optim_family.geometry import DiagonalMetric, Geometry, UnknownMetric, normalized_threshold
from optim_family.norms import MaxNorm, SpectralNorm
from optim_family.optimizers.adamw import AdamW
from optim_family.optimizers.base import FamilyOptimizer
from optim_family.optimizers.gd import GD
from optim_family.optimizers.lion import Lion
from optim_family.optimizers.rmsprop import RMSprop
from optim_family.optimizers.sgd import SGD
from optim_family.optimizers.signgd import SignGD

BUILT_IN = ("gd", "sgd", "rmsprop", "adamw", "signgd", "lion", "muon", "sam", "muon:signgd", "sam:sgd")


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_family_passes_every_check(name, check):
    check(registry.load(name))  # raises AssertionError where it does not


class WithVectors(registry.load("muon:signgd")):
    """Muon whose vectors move by signs: one norm over both."""

    test_shapes = ((4, 3), (5,))


@pytest.mark.parametrize(
    "check",
    [
        testing.check_norm_and_dual_belong_together,
        testing.check_step_is_the_maximiser,
        testing.check_decay_is_as_declared,
        testing.check_geometry_changes_nothing,
        testing.check_state_can_be_saved,
    ],
)
def test_matrices_and_vectors_have_one_norm(check):
    check(WithVectors)


class WrongDual(MaxNorm):
    def dual(self, gradient):
        return float(gradient.norm())


class NormOfTheWrongDual(SignGD):
    def geometry(self):
        return replace(super().geometry(), norm=WrongDual(self.dim))


class RadiusForgotten(registry.load("muon")):
    def geometry(self):
        geometry = super().geometry()
        return replace(geometry, norm=SpectralNorm([w.shape for w in self.weights], [1.0] * 3), inexact=0.0)


class DeclaredNormalised(SignGD):
    """Steepest descent whose step grows with the gradient, declared as normalised."""

    def update(self, w, grad, state, h):
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(grad.abs().sum() * grad.sign(), alpha=h["lr"])


class SignOfMomentumDeclaredWithout(Lion):
    def geometry(self):
        lr, decay = self.values["lr"], super().geometry().decay
        return Geometry.in_norm(MaxNorm(self.dim), normalized_threshold(lr, shrink=decay.shrink), decay)


class OrbitWithoutDecay(SignGD):
    def geometry(self):
        return replace(super().geometry(), threshold=2 / self.values["lr"])


class EdgeOfPlainDescent(registry.load("sam")):
    def geometry(self):
        geometry = super().geometry()
        plain = 2 / self.values["lr"]
        return geometry if isinstance(geometry.metric, UnknownMetric) else replace(geometry, threshold=plain)


class ThresholdTooHigh(GD):
    def geometry(self):
        geometry = super().geometry()
        return replace(geometry, threshold=1.2 * geometry.threshold)


class MetricWithoutRoot(RMSprop):
    def geometry(self):
        return replace(super().geometry(), metric=DiagonalMetric(self.next_step_entry(self._second_moment)))


class CoupledDeclaredDecoupled(SGD):
    def geometry(self):
        geometry = super().geometry()
        return replace(geometry, decay=replace(geometry.decay, coupled=False))


class MomentumForgotten(GD):
    def geometry(self):
        geometry = super().geometry()
        lr, beta = self.values["lr"], self.values["momentum"]
        return replace(geometry, threshold=geometry.threshold - 2 * beta / lr)


class DecayFactorForgotten(GD):
    def geometry(self):
        geometry = super().geometry()
        return replace(geometry, threshold=geometry.threshold + 2 * self.values["weight_decay"])


class StaleDefaults(GD):
    @property
    def values(self):
        return self.defaults


class CounterOutsideState(AdamW):
    count = 0

    def update(self, w, grad, state, h):
        self.count += 1
        super().update(w, grad, state, dict(h) | {"lr": h["lr"] / self.count})


class LooksAndTouches(RMSprop):
    def geometry(self):
        geometry = super().geometry()
        for w in self.weights:
            self.state[w]["v"] = self._second_moment(w, w.grad, self.state[w], self.values)
        return geometry


class WrongExponents(GD):
    def rescaling(self):
        return 1.0, -1.0


class NotFrozen(RMSprop):
    freeze: ClassVar = {"beta2": 0.9}


class TwoGroups(GD):
    def add_param_group(self, param_group):
        torch.optim.Optimizer.add_param_group(self, param_group)


class Dice(GD):
    def update(self, w, grad, state, h):
        super().update(w, grad + 1e-9 * torch.randn_like(w), state, h)


class OtherEpsilon(AdamW):
    def update_all(self, weights, gradients, states, h):
        super().update_all(weights, gradients, states, {**h, "eps": 2 * h["eps"]})


@pytest.mark.parametrize(
    ("defect", "check", "says"),
    [
        (ThresholdTooHigh, testing.check_threshold_is_sharp, "threshold"),
        (MetricWithoutRoot, testing.check_threshold_is_sharp, "without its square root"),
        (MetricWithoutRoot, testing.check_metric_is_that_of_the_step, "is not the P of the step"),
        (CoupledDeclaredDecoupled, testing.check_decay_is_as_declared, "coupled=False"),
        (MomentumForgotten, testing.check_threshold_is_sharp, "momentum"),
        (DecayFactorForgotten, testing.check_threshold_is_sharp, "weight_decay"),
        (StaleDefaults, testing.check_geometry_follows_a_schedule, "it reads defaults"),
        (CounterOutsideState, testing.check_state_is_complete, "not in `self.state`"),
        (LooksAndTouches, testing.check_geometry_changes_nothing, "changes what the next step does"),
        (WrongExponents, testing.check_rescaling, "rescaling"),
        (NotFrozen, testing.check_freeze_holds_the_metric, "should freeze it"),
        (TwoGroups, testing.check_one_parameter_group, "second parameter group"),
        (Dice, testing.check_is_deterministic, "different steps"),
        (OtherEpsilon, testing.check_all_tensors_at_once, "takes other steps than update"),
        (NormOfTheWrongDual, testing.check_norm_and_dual_belong_together, "which is no norm with its dual"),
        (RadiusForgotten, testing.check_step_is_the_maximiser, "a radius that is missing"),
        (DeclaredNormalised, testing.check_step_is_the_maximiser, "`normalized` is wrong"),
        (SignOfMomentumDeclaredWithout, testing.check_step_is_the_maximiser, "declared without"),
        (OrbitWithoutDecay, testing.check_orbit_sits_at_the_threshold, "without the decay"),
        (EdgeOfPlainDescent, testing.check_orbit_sits_at_the_threshold, "should be 1"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_defect_is_caught(defect: type[FamilyOptimizer], check, says):
    with pytest.raises(AssertionError, match=says) as caught:
        check(defect)
    assert "Likely cause" in str(caught.value)
