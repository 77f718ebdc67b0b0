"""Checks of a declared norm, and of thresholds that belong to an orbit of period 2, against real steps.

Each check returns what it measured, the worst case over all variants, or raises an AssertionError.
"""

import math
from typing import Any, Final, final

import torch
from torch import Tensor

from optim_family.conformance.harness import LR, OptimizerHarness, Undeclared, gradients, variants, with_decay
from optim_family.geometry import Geometry, UnknownMetric
from optim_family.norms import Norm
from optim_family.operators import SymmetricOperator
from optim_family.optimizers.base import OptimizerBase
from optim_family.sharpness.generalized_probe import GeneralizedProbe

EXACT: Final = 1e-9  # relative error of a norm and of a step
ON_ORBIT: Final = 1e-6  # relative error of the mean of threshold / sharpness along the orbit
ORBIT_STEPS: Final = 800  # after which the way to the orbit is forgotten
ORBIT_WINDOW: Final = 6  # steps, an even number
CURVATURE: Final = 0.7 / LR  # below every threshold without an orbit
NO_NORM: Final = Undeclared("no norm declared")
NO_ORBIT: Final = Undeclared("no orbit declared")


def check_norm_and_dual_belong_together(optimizer: type[OptimizerBase]) -> str:
    """N is positive and homogeneous; ⟨g, d⟩ ≤ N*(g) N(d), with equality at the maximiser, where N = 1."""
    worst = -1.0
    for values, _, norm in _normed(optimizer):
        for g, d in zip(gradients(norm.dim, 20, 11), gradients(norm.dim, 20, 12), strict=True):
            s, value, dual = norm.maximizer(g), norm.value(d), norm.dual(g)
            errors = {
                "N(−2d) is not 2 N(d)": abs(norm.value(-2 * d) / (2 * value) - 1),
                "⟨g, d⟩ exceeds N*(g) N(d)": max(0.0, float(g @ d) / (dual * value) - 1),
                "the maximiser has another norm than 1": abs(norm.value(s) - 1),
                "⟨g, maximiser⟩ is not N*(g)": abs(float(g @ s) / dual - 1),
            }
            broken = next((rule for rule, error in errors.items() if not error <= EXACT), None)
            assert value > 0 and broken is None, (
                f"{optimizer.__name__} declares {type(norm).__name__}, which is no norm with its dual: "
                f"{broken or 'N(d) is not above zero'}, with {values}. Likely cause: the dual of another "
                "norm, or a maximiser that is not scaled."
            )
            worst = max(worst, *errors.values())
    return f"relative error {worst:.1g}" if worst >= 0 else NO_NORM


def check_step_is_the_maximiser(optimizer: type[OptimizerBase]) -> str:
    """The first step is −η s or −η N*(g) s, as declared, and every step if the threshold is finite."""
    worst = -1.0
    for values, harness, _ in _normed(optimizer):
        warm = [harness.copy().warm_up()] if math.isfinite(harness.geometry().threshold) else []
        for case in (harness, *warm):
            g = next(gradients(case.space.dim, 1, seed=13))
            geometry, before = case.geometry(g), case.space.weights()
            assert geometry.norm is not None and geometry.decay is not None, (
                f"{optimizer.__name__} declares a norm and no decay, with {values}; declare Decay(0.0)."
            )
            step = (1 - geometry.decay.shrink) * before - case.step(g)
            size = values["lr"] * (1.0 if geometry.normalized else geometry.norm.dual(g))
            length, gain = geometry.norm.value(step) / size, float(g @ step) / geometry.norm.dual(g) / size
            error = max(abs(length - 1), abs(gain - 1))
            assert error <= geometry.inexact + EXACT, (
                f"{optimizer.__name__}'s step has {length:.6g} times the declared length in "
                f"{type(geometry.norm).__name__} and gains {gain:.6g} times as much as the maximiser does "
                f"(both should be 1), with {values}. Likely causes: a radius that is missing in the norm, "
                "`normalized` is wrong, or momentum in a step that is declared without."
            )
            worst = max(worst, error)
    return f"relative error {worst:.1g}" if worst >= 0 else NO_NORM


def check_orbit_sits_at_the_threshold(optimizer: type[OptimizerBase]) -> str:
    """On ½ h ‖w‖² the optimizer ends in an orbit at its threshold: the mean of threshold/sharpness is 1."""
    worst = -1.0
    for values in with_decay(optimizer):
        geometry = OptimizerHarness.build(optimizer, values).geometry()
        if not geometry.orbit or math.isinf(geometry.threshold):
            continue
        inverse = _late_inverse_ratio(OptimizerHarness.build(optimizer, values))
        error = abs(inverse - 1)
        assert error <= geometry.inexact + ON_ORBIT, (
            f"{optimizer.__name__} declares that it ends at its threshold; after {ORBIT_STEPS} real steps on "
            f"½ h ‖w‖² the mean of threshold/sharpness is {inverse:.8g} (should be 1), with {values}. Likely "
            "causes: a threshold without the decay or without the momentum, or a norm of another scale."
        )
        worst = max(worst, error)
    return f"mean of threshold/sharpness differs from 1 by {worst:.1g}" if worst >= 0 else NO_ORBIT


def _normed(optimizer: type[OptimizerBase]) -> list[tuple[dict[str, Any], OptimizerHarness, Norm]]:
    """The variants that declare a norm, each with a new harness."""
    cases = []
    for values in variants(optimizer, lr=LR, weight_decay=0.2):
        harness = OptimizerHarness.build(optimizer, values)
        if (norm := harness.geometry().norm) is not None:
            cases.append((values, harness, norm))
    return cases


def _late_inverse_ratio(harness: OptimizerHarness) -> float:
    """The mean of threshold / sharpness over whole periods, late on ½ h ‖w‖²."""
    inverse = list[float]()
    for step in range(ORBIT_STEPS + ORBIT_WINDOW):
        w = harness.space.weights()
        if step >= ORBIT_STEPS:
            inverse.append(1 / _ratio(harness.geometry(CURVATURE * w), w))
        harness.step(lambda w: CURVATURE * w)
    return math.fsum(inverse) / len(inverse)


def _ratio(geometry: Geometry, w: Tensor) -> float:
    """Sharpness / threshold of ½ h ‖w‖²."""
    if isinstance(geometry.metric, UnknownMetric):
        reading = GeneralizedProbe(budget=12)(_Isotropic(w), w, geometry)
        assert reading.ratio is not None
        return reading.ratio
    root = geometry.metric.power(-0.5).dense()
    return CURVATURE * float(torch.linalg.eigvalsh(root @ root)[-1]) / geometry.threshold


@final
class _Isotropic(SymmetricOperator):
    """h I, the second derivative of ½ h ‖w‖² at w."""

    def __init__(self, w: Tensor) -> None:
        self.dim, self.w = w.numel(), w

    def apply(self, v: Tensor) -> Tensor:
        """h v."""
        return CURVATURE * v

    def gradient(self) -> Tensor:
        """h w."""
        return CURVATURE * self.w
