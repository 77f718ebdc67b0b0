"""Every case holds, in a shorter form, and fails with a planted defect."""

import math
from dataclasses import replace
from functools import partial
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from optim_family import registry
from optim_family.operators import Scalar
from optim_family.optimizers.adamw import AdamW
from optim_family.optimizers.gd import GD
from optim_family.optimizers.rmsprop import RMSprop
from optim_family.optimizers.sgd import SGD
from optim_family.optimizers.signgd import SignGD
from optim_family.sharpness.probe import Probe
from optim_family.theory import cases, flow, flow_comparison
from optim_family.theory.small_networks import Network
from optim_family.theory.verify import CaseResult, run_case

# What makes a case short: the same statement over less time.
SHORT = {
    "V1": {"STEPS": 5},
    "V2": {"STEPS": 20},
    "V3": {"NORMS": (0.1, 40.0)},
    "V4": {"STEPS": 20},
    "V5": {"TAU": 0.2},
    "V6": {"TIMES": (1,), "LR": 0.04},
    "V7": {"SETTLE": 100, "STEPS": 150},
    "V8": {"BETA2": 0.9, "STEPS": 250},
    "V9": {"ETA_LAMBDAS": (3.2e-3, 1.6e-3), "TAU": 0.4, "TIMES": 25},
    "V10": {"BETAS": (0.99,), "STEPS": 1000, "EVERY": 100},
    "V11": {"STEPS": 1200, "EVERY": 100},
    "V13": {"STEPS": 20},
    "V14": {"STEPS": 1000, "ETA_LAMBDAS": (0.02,)},
    "V15": {"OPTIMIZERS": ("gd", "signgd")},
    "V16": {"STEPS": 400, "GRADIENTS": (0.1,), "EDGES": (5.4031,)},
    "V17": {"STEPS": 60},
    "V18": {"DRAWN": np.array([0.1, 1.0])},
    "V19": {"DIM": 1000, "STEPS": 3000, "TOLERANCE": 0.03},
}


def module(name: str) -> ModuleType:
    return import_module(f"{cases.__name__}.{cases.MODULES[name]}")


def run_short(name: str, patch: pytest.MonkeyPatch) -> CaseResult:
    for constant, value in SHORT[name].items():
        patch.setattr(module(name), constant, value)
    return run_case(cases.load(name))


@pytest.mark.parametrize("name", SHORT)
def test_a_case_holds_and_can_be_drawn(name, monkeypatch):
    result = run_short(name, monkeypatch)
    assert [f for f in result.checks if not f.holds] == []
    assert result.holds, result.failure
    axes = Figure().add_subplot()
    result.case.draw(axes, result.evidence)
    assert axes.lines and axes.get_xlabel() and axes.get_ylabel() and axes.get_legend_handles_labels()[1]


# --- defects of optimizers --------------------------------------------------------------------------------


class DecayAfterTheStep(GD):
    """w ← (1 − ηλ)(w − ηg): the factor (1 − ηλ) is missing in ℓ."""

    def update(self, w, grad, state, h):
        w.sub_(grad, alpha=h["lr"]).mul_(1 - h["lr"] * h["weight_decay"])


class NoDecay(GD):
    def update(self, w, grad, state, h):
        super().update(w, grad, state, dict(h) | {"weight_decay": 0.0})


class MoreDecay(GD):
    def update(self, w, grad, state, h):
        super().update(w, grad, state, dict(h) | {"weight_decay": 1.1 * h["weight_decay"]})


class DecayWithoutRate(GD):
    """w ← (1 − λ) w − ηg."""

    def update(self, w, grad, state, h):
        w.mul_(1 - h["weight_decay"]).sub_(grad, alpha=h["lr"])


class LongerSteps(GD):
    def update(self, w, grad, state, h):
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(grad, alpha=1.005 * h["lr"])


class ThresholdWithoutDecay(GD):
    def geometry(self):
        return replace(super().geometry(), threshold=2 / self.values["lr"])


class PolyakForNesterov(SGD):
    def update(self, w, grad, state, h):
        super().update(w, grad, state, dict(h) | {"nesterov": False})


class ForgetsMomentum(AdamW):
    def update(self, w, grad, state, h):
        super().update(w, grad, state, dict(h) | {"beta1": 0.0})


class DelayedMoment(RMSprop):
    """v takes the gradient in after the step."""

    def update(self, w, grad, state, h):
        now = self._second_moment(w, grad, state, h)
        v = state.get("v", now)
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(grad / (v.sqrt() + h["eps"]), alpha=h["lr"])
        state["v"] = now


class WithoutRho(RMSprop):
    """ĝ = g."""

    def _second_moment(self, w, grad, state, h):
        return super()._second_moment(w, grad, state, dict(h) | {"preconditioning": "raw"})


class LongerAdaptiveSteps(RMSprop):
    def update(self, w, grad, state, h):
        super().update(w, grad, state, dict(h) | {"lr": 1.5 * h["lr"]})


class SignsWithoutDecay(SignGD):
    def update(self, w, grad, state, h):
        super().update(w, grad, state, dict(h) | {"weight_decay": 0.0})


class RadiusForgotten(registry.load("muon")):
    def update(self, w, grad, state, h):
        super().update(w, grad, state, dict(h) | {"lr": h["lr"] / math.sqrt(4 / 3)})


class NotUphill(registry.load("sam")):
    def step(self, closure=None):
        closure()
        self._synchronised().step()


class DescentWithoutMomentum(GD):
    def update(self, w, grad, state, h):
        super().update(w, grad, state, dict(h) | {"momentum": 0.0})
        state["m"] = grad


class TwiceTheDecay(SGD):
    def update(self, w, grad, state, h):
        super().update(w, grad, state, dict(h) | {"weight_decay": 1.2 * h["weight_decay"]})


@pytest.mark.parametrize(
    ("name", "defect"),
    [
        ("V1", DecayAfterTheStep),
        ("V1", NoDecay),
        ("V2", DecayAfterTheStep),
        ("V2", MoreDecay),
        ("V4", DecayWithoutRate),
        ("V4", WithoutRho),
        ("V5", NoDecay),
        ("V5", MoreDecay),
        ("V6", LongerAdaptiveSteps),
        ("V7", LongerSteps),
        ("V7", ThresholdWithoutDecay),
        ("V7", DecayAfterTheStep),
        ("V7", PolyakForNesterov),
        ("V7", ForgetsMomentum),
        ("V8", DelayedMoment),
        ("V8", LongerAdaptiveSteps),
        ("V9", NoDecay),
        ("V9", MoreDecay),
        ("V10", LongerAdaptiveSteps),
        ("V11", ForgetsMomentum),
        ("V13", DecayAfterTheStep),
        ("V13", DecayWithoutRate),
        ("V13", WithoutRho),
        ("V14", SignsWithoutDecay),
        ("V14", RadiusForgotten),
        ("V16", NotUphill),
        ("V17", LongerSteps),
        ("V18", DescentWithoutMomentum),
        ("V19", TwiceTheDecay),
    ],
)
def test_a_defect_of_an_optimizer_is_seen(name, defect, monkeypatch):
    base, right = defect.__mro__[1].__qualname__, registry.load
    monkeypatch.setattr(
        registry, "load", lambda name: defect if right(name).__qualname__ == base else right(name)
    )
    result = run_short(name, monkeypatch)
    assert not result.holds


def test_a_critical_rate_that_is_off_by_a_bisection_is_seen(monkeypatch):
    from optim_family.sharpness import along_update

    monkeypatch.setattr(along_update, "RTOL", 0.2)
    assert not run_short("V15", monkeypatch).holds


def test_a_delayed_moment_lets_the_oscillation_grow(monkeypatch):
    """A smaller β shows it earlier."""
    monkeypatch.setattr(module("V6"), "BETA", 0.99)
    assert run_short("V6", monkeypatch).holds
    right = registry.load
    monkeypatch.setattr(registry, "load", lambda name: DelayedMoment if name == "rmsprop" else right(name))
    assert not run_short("V6", monkeypatch).holds


# --- wrong constants of the flow, wrong measuring ---------------------------------------------------------


@pytest.mark.parametrize(
    "equation",
    [
        flow.FlowEquation(speed=1, weight=1, spherical=True),
        flow.FlowEquation(speed=2, weight=0, spherical=True),
    ],
    ids=str,
)
def test_a_wrong_constant_of_the_flow_is_noticed_by_gradient_descent(equation, monkeypatch):
    monkeypatch.setattr(flow_comparison, "integrate", partial(flow.integrate, equation=equation))
    assert not run_short("V9", monkeypatch).holds


@pytest.mark.parametrize("change", [{"speed": 2}, {"weight": 0}, {"weight": 2.0}], ids=str)
def test_a_wrong_constant_of_the_flow_of_rmsprop_is_seen(change, monkeypatch):
    right = flow.scalar_rmsprop
    monkeypatch.setattr(flow, "scalar_rmsprop", lambda *args: replace(right(*args), **change))
    assert not run_short("V6", monkeypatch).holds


def test_rmsprop_shows_that_its_constant_is_not_twice_as_large(monkeypatch):
    right = module("V6").coupling
    monkeypatch.setattr(module("V6"), "coupling", lambda: 2 * right())
    failed = [f.quantity for f in run_short("V6", monkeypatch).checks if not f.holds]
    assert "u of RMSprop at τ = 1" in failed


def test_an_ordinary_eps_of_batchnorm_is_seen(monkeypatch):
    def loss(self, w):
        z = self.x @ w.view_as(self.weights).T
        z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
        return 0.5 * (torch.tanh(z) @ self.readout - self.y).square().mean()

    monkeypatch.setattr(Network, "loss", loss)
    assert not run_short("V3", monkeypatch).holds


def test_a_radius_in_the_first_power_is_seen(monkeypatch):
    class Wrong(Probe):
        def __call__(self, hessian, weights, geometry=None):
            reading = super().__call__(hessian, weights, geometry)
            return replace(reading, value=reading.value / float(weights.norm()))

    monkeypatch.setattr(module("V3"), "Probe", Wrong)
    assert not run_short("V3", monkeypatch).holds


def test_a_metric_that_is_not_that_of_the_step_is_seen(monkeypatch):
    """The orbit itself is right."""
    right = registry.load

    class WrongMetric(RMSprop):
        def geometry(self):
            geometry = super().geometry()
            root = geometry.metric.power(0.5)

            class Root:
                def power(self, exponent):
                    return Scalar(root.dim) if exponent == 0 else geometry.metric.power(exponent / 2)

            return replace(geometry, metric=Root())

    monkeypatch.setattr(registry, "load", lambda name: WrongMetric if name == "rmsprop" else right(name))
    failed = [f.quantity for f in run_short("V8", monkeypatch).checks if not f.holds]
    assert failed == ["η h / √v"]


# --- real data --------------------------------------------------------------------------------------------

DIGITS = module("V12")
FALLING = DIGITS.RunTail([1.0, 0.6, 0.4, 0.3], [0.90, 0.91, 0.93, 0.93], 1.3)
STANDING = DIGITS.RunTail([1.0, 1.1, 1.1, 1.1], [0.90, 0.90, 0.90, 0.90], 1.0)
GOOD = {DIGITS.FULL: [FALLING] * 3, DIGITS.NO_DECAY: [STANDING] * 3, DIGITS.NO_NORM: [STANDING] * 3}


def failed(tails):
    return [f.quantity for f in DIGITS.checks(tails) if not f.holds]


def test_the_phenomenon_with_both_and_not_without_one_is_what_is_asked():
    assert failed(GOOD) == []


@pytest.mark.parametrize(
    ("which", "tail", "says"),
    [
        (DIGITS.FULL, replace(FALLING, ratio=2.0), "median of S"),
        (DIGITS.FULL, replace(FALLING, ratio=0.5), "median of S"),
        (DIGITS.FULL, replace(FALLING, sharpness=[1.0, 0.9, 0.8, 0.7]), "late / at the fit"),
        (DIGITS.FULL, replace(FALLING, accuracy=[0.93] * 4), "gain of test accuracy"),
        (DIGITS.FULL, replace(FALLING, accuracy=[0.80, 0.85, 0.89, 0.89]), "late test accuracy above"),
        (DIGITS.NO_DECAY, replace(STANDING, sharpness=[1.0, 0.9, 0.8, 0.8]), "late / at the fit"),
        (DIGITS.NO_DECAY, replace(STANDING, accuracy=[0.90, 0.91, 0.92, 0.92]), "gain of test accuracy"),
        (DIGITS.NO_NORM, replace(STANDING, sharpness=[1.0, 0.9, 0.8, 0.8]), "late / at the fit"),
        (DIGITS.NO_NORM, replace(STANDING, accuracy=[0.94] * 4), "late test accuracy above"),
    ],
)
def test_a_run_on_digits_that_does_otherwise_is_seen(which, tail, says):
    quantities = failed(GOOD | {which: [tail] * 3})
    assert quantities and all(says in quantity for quantity in quantities)


@pytest.mark.parametrize("which", GOOD)
def test_a_run_that_never_fits_the_digits_is_seen(which):
    assert failed(GOOD | {which: [DIGITS.RunTail([], [], math.nan)] * 3})


def test_the_runs_on_digits_are_real_ones(monkeypatch):
    """Too short to fit anything: every measured number is NaN."""
    for constant, value in {"SEEDS": (0,), "STEPS": 2, "EVERY": 2}.items():
        monkeypatch.setattr(DIGITS, constant, value)
    result = run_case(cases.load("V12"))
    assert result.checks and not result.failure
    assert all(math.isnan(check.measured) for check in result.checks)
    result.case.draw(Figure().add_subplot(), GOOD)
