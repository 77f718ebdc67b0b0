"""The suite passes for the family and catches seven planted defects, each by the check that is for it."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from optim_family import registry, testing
from optim_family.geometry import DiagonalMetric
from optim_family.optimizers.adamw import AdamW
from optim_family.optimizers.base import FamilyOptimizer
from optim_family.optimizers.gd import GD
from optim_family.optimizers.rmsprop import RMSprop
from optim_family.optimizers.sgd import SGD

BUILT_IN = ("gd", "sgd", "rmsprop", "adamw")


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_family_passes_every_check(name, check):
    check(registry.load(name))  # raises AssertionError where it does not


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
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_defect_is_caught(defect: type[FamilyOptimizer], check, says):
    with pytest.raises(AssertionError, match=says) as caught:
        check(defect)
    assert "Likely cause" in str(caught.value)
