"""Checks of the declared geometry against real steps.

Each check returns what it measured, the worst case over all variants, or raises an AssertionError.
"""

import math
from typing import Any, Final

import torch
from torch import Tensor

from optim_family.conformance.harness import (
    LR,
    OptimizerHarness,
    Undeclared,
    gradients,
    variants,
    with_decay,
    with_metric,
)
from optim_family.optimizers.base import OptimizerBase

MOMENTUM_DECAY_STEPS = 20_000  # at most, until the momentum of the warm-up has decayed
WEIGHT_SCALE = 1e-12  # so small that gradients do not change a sum or a maximum of squares either
SETTLE_STEPS = 60  # until one oscillation dominates
OFFSET: Final = 0.005  # of the curvature from the threshold, on either side
OSCILLATION_STEPS = 300  # in which an offset from the threshold shows
BEAT_WINDOW = 30  # steps whose maximum is the amplitude: strong momentum beats below the threshold
NO_METRIC: Final = Undeclared("no metric declared")


def check_threshold_is_sharp(optimizer: type[OptimizerBase]) -> str:
    """With P frozen, an oscillation decays at curvature 0.5 % (`OFFSET`) below the threshold and grows above.

    Measured relative to a weight without gradient, which weight decay shrinks too. The loss is ½ wᵀHw with
    H = P^{1/2} U diag(h, h/10, …, 0) Uᵀ P^{1/2}, so that λ₁(P^{-1/2} H P^{-1/2}) = h.
    """
    lowest, highest, (below, above) = math.inf, 0.0, (1 - OFFSET, 1 + OFFSET)
    for values in with_metric(optimizer, with_decay(optimizer)):
        geometry = OptimizerHarness.build(optimizer, values).geometry()
        if geometry.orbit:  # `check_orbit_sits_at_the_threshold` is for these
            continue
        declared = geometry.threshold
        frozen = _frozen(optimizer, values)
        growth = {factor: _growth(frozen, factor) for factor in (below, above)}
        assert growth[below] < 1 < growth[above], (
            f"{optimizer.__name__} declares the threshold {declared:.6g} with {values}; in up to "
            f"{OSCILLATION_STEPS} real steps an oscillation changed by the factor "
            f"{growth[below]:.3g} at {below:g} times that curvature (should be below 1) and "
            f"{growth[above]:.3g} at {above:g} times (above 1). Likely causes: momentum or the factor "
            "(1 − ηλ) missing in the threshold, or a metric that is not the P of the step "
            "(perhaps without its square root)."
        )
        highest, lowest = max(highest, growth[below]), min(lowest, growth[above])
    return f"× {highest:.3g} at {below:g}, × {lowest:.3g} at {above:g}" if highest else NO_METRIC


def _frozen(optimizer: type[OptimizerBase], values: dict[str, Any]) -> OptimizerHarness:
    """After a warm-up: the metric is frozen and the momentum has decayed."""
    harness = OptimizerHarness.build(optimizer, values).warm_up()
    harness.set(**optimizer.freeze)
    zero = torch.zeros(harness.space.dim, dtype=torch.float64)
    for _ in range(MOMENTUM_DECAY_STEPS):
        harness.space.assign(zero)  # otherwise the decay would feed the momentum
        if float(harness.step(zero).norm()) < 1e-3 * WEIGHT_SCALE:
            break
    return harness


def _growth(frozen: OptimizerHarness, factor: float) -> float:
    """Growth of an oscillation at curvature factor · threshold, relative to a weight without gradient."""
    harness = frozen.copy()
    harness.set(**frozen.optimizer.freeze)
    geometry, dim = harness.geometry(), harness.space.dim
    root, inverse = (geometry.metric.power(e).dense() for e in (0.5, -0.5))  #                   [d, d]
    basis = torch.linalg.qr(next(gradients(dim * dim, 1, seed=2)).view(dim, dim)).Q
    spectrum = torch.zeros(dim, dtype=torch.float64)
    spectrum[:3] = geometry.threshold * torch.tensor([factor, 0.1, 0.01])
    hessian = root @ basis @ torch.diag(spectrum) @ basis.T @ root
    harness.space.assign(WEIGHT_SCALE * inverse @ (basis[:, 0] + 100 * basis[:, 3]))
    amplitudes = list[float]()
    for step in range(SETTLE_STEPS + OSCILLATION_STEPS):
        y = basis.T @ root @ harness.step(hessian @ harness.space.weights())
        amplitudes.append(float(abs(y[0] / y[3])))
        growth = max(amplitudes[-BEAT_WINDOW:]) / max(amplitudes[:SETTLE_STEPS][-BEAT_WINDOW:])
        if step >= SETTLE_STEPS and not 1e-3 < growth < 1e3:  # decided; later steps meet rounding errors
            break
    return growth


def check_metric_is_that_of_the_step(optimizer: type[OptimizerBase]) -> str:
    """P is positive definite; with P frozen, a change δ of the gradient changes the step by −c P⁻¹δ."""
    worst = math.inf
    for values in with_metric(optimizer, with_decay(optimizer)):
        harness = OptimizerHarness.build(optimizer, values).warm_up()
        harness.set(**optimizer.freeze)
        gradient, delta = gradients(harness.space.dim, 2, seed=3)
        other = harness.copy()
        inverse = harness.geometry(gradient).metric.power(-1.0).dense()
        lowest = float(torch.linalg.eigvalsh(inverse)[0])
        assert lowest > 0, (
            f"{optimizer.__name__}'s metric has P⁻¹ with the eigenvalue {lowest:.3g} (should be above 0), "
            f"with {values}. Likely cause: a difference in the metric that should be a sum."
        )
        change = other.step(gradient + 0.1 * delta) - harness.step(gradient)
        expected = -inverse @ delta
        cosine = float(change @ expected / (change.norm() * expected.norm()))
        assert cosine > 1 - 1e-8, (
            f"{optimizer.__name__}'s step changes with the gradient in a direction whose cosine with −P⁻¹δ "
            f"is {cosine:.6f} (should be 1), with {values}. Likely causes: the metric of "
            "geometry() is not the P of the step, or `freeze` does not freeze it; it is "
            f"{dict(optimizer.freeze)}."
        )
        worst = min(worst, cosine)
    return f"cosine 1 − {max(1 - worst, 0.0):.1g}" if worst < math.inf else NO_METRIC


def check_freeze_holds_the_metric(optimizer: type[OptimizerBase]) -> str:
    """With the values of `freeze` in force, P stays constant over 20 steps."""
    worst = -1.0
    for values in with_metric(optimizer, variants(optimizer, lr=LR)):
        harness = OptimizerHarness.build(optimizer, values).warm_up()
        harness.set(**optimizer.freeze)
        metrics = []
        for gradient in gradients(harness.space.dim, 20, seed=4):
            metrics.append(harness.geometry(gradient).metric.power(1.0).dense())
            harness.step(gradient)
        drift = float((metrics[-1] - metrics[0]).norm() / metrics[0].norm())
        assert drift < 1e-6, (
            f"{optimizer.__name__}'s metric changed by {drift:.2g} (relative) in 19 steps although "
            f"`freeze` = {dict(optimizer.freeze)} should freeze it, with {values}. "
            "Likely causes: an average that `freeze` does not name, or a metric made from the gradient."
        )
        worst = max(worst, drift)
    return f"relative change {worst:.1g}" if worst >= 0 else NO_METRIC


def check_decay_is_as_declared(optimizer: type[OptimizerBase]) -> str:
    """Decoupled decay: w ← (1 − s) w before the step. Coupled decay: λw is added to the gradient."""
    worst = -1.0
    for values in variants(optimizer, lr=LR, weight_decay=0.3):
        if (decay := OptimizerHarness.build(optimizer, values).geometry().decay) is None:
            continue
        harness, plain = (
            OptimizerHarness.build(optimizer, v) for v in (values, values | {"weight_decay": 0.0})
        )
        for gradient in gradients(harness.space.dim, 5, seed=5):
            before = harness.space.weights()
            plain.space.assign(before)
            if decay.coupled:
                expected = plain.step(gradient + values["weight_decay"] * before)
            else:
                expected = plain.step(gradient) - decay.shrink * before
            error = float((harness.step(gradient) - expected).norm() / before.norm())
            assert error < 1e-12, (
                f"{optimizer.__name__} declares {decay}; its real step differs by {error:.2g} ‖w‖ from the "
                f"step without decay plus that decay, with {values}. Likely causes: `coupled` is inverted, "
                "`shrink` is not ηλ, or the step has no decay."
            )
            worst = max(worst, error)
    return f"error {worst:.1g} ‖w‖" if worst >= 0 else Undeclared("no decay declared")


def check_rescaling(optimizer: type[OptimizerBase]) -> str:
    """(w, η, λ) → (3w, 3ᵃη, 3ᵇλ) keeps the path of w/‖w‖ over 300 steps on a scale-invariant loss."""
    worst = -1.0
    for values in with_decay(optimizer) + [v | {"eps": 0.0} for v in with_decay(optimizer) if "eps" in v]:
        harness = OptimizerHarness.build(optimizer, values | {"lr": 0.01})
        if (exponents := harness.optimizer.rescaling()) is None:
            continue
        a, b = exponents
        scaled = harness.copy(lr=0.01 * 3**a, weight_decay=values["weight_decay"] * 3**b)
        scaled.space.assign(3 * harness.space.weights())
        for _ in range(300):
            w, u = (x.step(_invariant_gradient(x.space.weights())) for x in (harness, scaled))
        error = float((w / w.norm() - u / u.norm()).norm())
        assert error < 1e-10, (
            f"{optimizer.__name__} declares rescaling {exponents}; after 300 steps the directions of the two "
            f"runs differ by {error:.2g} (should be below 1e-10), with {values}. "
            "Likely causes: a metric that depends on the size of the weights, or wrong exponents."
        )
        worst = max(worst, error)
    return f"directions differ by {worst:.1g}" if worst >= 0 else Undeclared("no rescaling declared")


def _invariant_gradient(w: Tensor) -> Tensor:
    """∇ of ½ wᵀAw / wᵀw, A = diag(0, …, 1): [d] → [d]."""
    a, square = torch.linspace(0, 1, len(w), dtype=w.dtype), w @ w
    return (a * w - (w @ (a * w)) / square * w) / square
