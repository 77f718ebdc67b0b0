"""What an optimizer declares about its geometry, and what its real steps say to that.

Each check returns what it measured, the worst case over all variants, or raises an AssertionError.
"""

import math
from typing import Any, Final

import torch
from torch import Tensor

from optim_family.conformance.harness import (
    LR,
    OptimizerHarness,
    gradients,
    variants,
    with_decay,
    with_metric,
)
from optim_family.optimizers.base import OptimizerBase

MOMENTUM_DECAY_STEPS = 20_000  # steps at most until the momentum that the warm-up left has died out
WEIGHT_SCALE = 1e-12  # of the weights: their gradients do not move a sum or a maximum of squares either
SETTLE_STEPS = 60  # steps until one oscillation is left
OSCILLATION = 300  # steps in which 0.5 % too much or too little curvature shows
BEAT_WINDOW = 30  # steps of which the largest counts: below the threshold a strong momentum makes beats
NO_METRIC: Final = "no metric is declared"


def check_threshold_is_sharp(optimizer: type[OptimizerBase]) -> str:
    """With P held still, curvature 0.5 % below the threshold dies out and 0.5 % above it grows.

    Relative to a weight without gradient, which the decay shrinks too. The loss is ½ wᵀHw with
    H = P^{1/2} U diag(h, h/10, …, 0) Uᵀ P^{1/2}, so that λ₁(P^{-1/2} H P^{-1/2}) = h.
    """
    lowest, highest = math.inf, 0.0
    for values in with_metric(optimizer, with_decay(optimizer)):
        declared = OptimizerHarness.build(optimizer, values).geometry().threshold
        still = _still(optimizer, values)
        growth = {factor: _growth(still, factor) for factor in (0.995, 1.005)}
        assert growth[0.995] < 1 < growth[1.005], (
            f"{optimizer.__name__} declares the threshold {declared:.6g} with {values}; in up to "
            f"{OSCILLATION} real steps an oscillation changed by the factor "
            f"{growth[0.995]:.3g} at 0.995 times that curvature (should be below 1) and {growth[1.005]:.3g} "
            "at 1.005 times (above 1). Likely causes: momentum or the factor (1 − ηλ) missing in the "
            "threshold, or a metric that is not the P of the step (without its square root, say)."
        )
        highest, lowest = max(highest, growth[0.995]), min(lowest, growth[1.005])
    return f"× {highest:.3g} at 0.995, × {lowest:.3g} at 1.005" if highest else NO_METRIC


def _still(optimizer: type[OptimizerBase], values: dict[str, Any]) -> OptimizerHarness:
    """With a metric that training has made, which is held, and a momentum that has died out."""
    bench = OptimizerHarness.build(optimizer, values).warm_up()
    bench.set(**optimizer.freeze)
    nothing = torch.zeros(bench.space.dim, dtype=torch.float64)
    for _ in range(MOMENTUM_DECAY_STEPS):
        bench.space.assign(nothing)  # or the decay would feed the momentum
        if float(bench.step(nothing).norm()) < 1e-3 * WEIGHT_SCALE:
            break
    return bench


def _growth(still: OptimizerHarness, factor: float) -> float:
    """By what an oscillation at factor · threshold changes, compared with a weight without gradient."""
    bench = still.copy()
    bench.set(**still.optimizer.freeze)
    geometry, dim = bench.geometry(), bench.space.dim
    root, inverse = (geometry.metric.power(e).dense() for e in (0.5, -0.5))  #                   [d, d]
    basis = torch.linalg.qr(next(gradients(dim * dim, 1, seed=2)).view(dim, dim)).Q
    spectrum = torch.zeros(dim, dtype=torch.float64)
    spectrum[:3] = geometry.threshold * torch.tensor([factor, 0.1, 0.01])
    hessian = root @ basis @ torch.diag(spectrum) @ basis.T @ root
    bench.space.assign(WEIGHT_SCALE * inverse @ (basis[:, 0] + 100 * basis[:, 3]))
    sizes = list[float]()
    for step in range(SETTLE_STEPS + OSCILLATION):
        y = basis.T @ root @ bench.step(hessian @ bench.space.weights())
        sizes.append(float(abs(y[0] / y[3])))
        growth = max(sizes[-BEAT_WINDOW:]) / max(sizes[:SETTLE_STEPS][-BEAT_WINDOW:])
        if step >= SETTLE_STEPS and not 1e-3 < growth < 1e3:  # on towards rounding errors nothing is learnt
            break
    return growth


def check_metric_is_that_of_the_step(optimizer: type[OptimizerBase]) -> str:
    """P is positive definite; held still, a change δ of the gradient changes the step by −c P⁻¹δ."""
    worst = math.inf
    for values in with_metric(optimizer, with_decay(optimizer)):
        bench = OptimizerHarness.build(optimizer, values).warm_up()
        bench.set(**optimizer.freeze)
        gradient, delta = gradients(bench.space.dim, 2, seed=3)
        other = bench.copy()
        inverse = bench.geometry(gradient).metric.power(-1.0).dense()
        lowest = float(torch.linalg.eigvalsh(inverse)[0])
        assert lowest > 0, (
            f"{optimizer.__name__}'s metric has P⁻¹ with the eigenvalue {lowest:.3g} (should be above 0), "
            f"with {values}. Likely cause: a difference in the metric, where a sum is meant."
        )
        moved = other.step(gradient + 0.1 * delta) - bench.step(gradient)
        expected = -inverse @ delta
        cosine = float(moved @ expected / (moved.norm() * expected.norm()))
        assert cosine > 1 - 1e-8, (
            f"{optimizer.__name__}'s step answers a change of the gradient along a direction that has the "
            f"cosine {cosine:.6f} with −P⁻¹δ (should be 1), with {values}. Likely causes: the metric of "
            "geometry() is not the P of the step, or `freeze` does not hold it still; it is "
            f"{dict(optimizer.freeze)}."
        )
        worst = min(worst, cosine)
    return f"cosine 1 − {max(1 - worst, 0.0):.1g}" if worst < math.inf else NO_METRIC


def check_freeze_holds_the_metric(optimizer: type[OptimizerBase]) -> str:
    """With the values of `freeze` in force, P does not move in 20 steps."""
    worst = -1.0
    for values in with_metric(optimizer, variants(optimizer, lr=LR)):
        bench = OptimizerHarness.build(optimizer, values).warm_up()
        bench.set(**optimizer.freeze)
        metrics = []
        for gradient in gradients(bench.space.dim, 20, seed=4):
            metrics.append(bench.geometry(gradient).metric.power(1.0).dense())
            bench.optimizer.step()
        drift = float((metrics[-1] - metrics[0]).norm() / metrics[0].norm())
        assert drift < 1e-6, (
            f"{optimizer.__name__}'s metric moved by {drift:.2g} of itself in 19 steps although "
            f"`freeze` = {dict(optimizer.freeze)} should hold it still, with {values}. "
            "Likely causes: a memory that `freeze` does not name, or a metric of the gradient itself."
        )
        worst = max(worst, drift)
    return f"moved by {worst:.1g} of itself" if worst >= 0 else NO_METRIC


def check_decay_is_as_declared(optimizer: type[OptimizerBase]) -> str:
    """Decoupled: w ← (1 − s) w apart from the step. Coupled: λw is added to the gradient."""
    worst = -1.0
    for values in variants(optimizer, lr=LR, weight_decay=0.3):
        bench, plain = (
            OptimizerHarness.build(optimizer, values),
            OptimizerHarness.build(optimizer, values | {"weight_decay": 0.0}),
        )
        if (decay := OptimizerHarness.build(optimizer, values).geometry().decay) is None:
            continue
        for gradient in gradients(bench.space.dim, 5, seed=5):
            before = bench.space.weights()
            plain.space.assign(before)
            if decay.coupled:
                expected = plain.step(gradient + values["weight_decay"] * before)
            else:
                expected = plain.step(gradient) - decay.shrink * before
            error = float((bench.step(gradient) - expected).norm() / before.norm())
            assert error < 1e-12, (
                f"{optimizer.__name__} declares {decay}; its real step differs by {error:.2g} of the weights "
                f"from the same step without decay plus that decay, with {values}. Likely causes: `coupled` "
                "the wrong way round, a shrink that is not ηλ, or a decay that is left out of the step."
            )
            worst = max(worst, error)
    return f"off by {worst:.1g} of the weights" if worst >= 0 else "none is declared"


def check_rescaling(optimizer: type[OptimizerBase]) -> str:
    """(w, η, λ) → (3w, 3ᵃη, 3ᵇλ) leaves 300 steps of w/‖w‖ on a scale-invariant loss as they were."""
    worst = -1.0
    for values in with_decay(optimizer) + [v | {"eps": 0.0} for v in with_decay(optimizer) if "eps" in v]:
        bench = OptimizerHarness.build(optimizer, values | {"lr": 0.01})
        exponents = bench.optimizer.rescaling()
        if exponents is None:
            continue
        a, b = exponents
        scaled = bench.copy(lr=0.01 * 3**a, weight_decay=values["weight_decay"] * 3**b)
        scaled.space.assign(3 * bench.space.weights())
        for _ in range(300):
            w, u = (x.step(_invariant_gradient(x.space.weights())) for x in (bench, scaled))
        error = float((w / w.norm() - u / u.norm()).norm())
        assert error < 1e-10, (
            f"{optimizer.__name__} declares rescaling {exponents}; after 300 steps the directions of the two "
            f"runs differ by {error:.2g} (should be below 1e-10), with {values}. "
            "Likely causes: a metric that depends on the size of the weights, or other exponents."
        )
        worst = max(worst, error)
    return f"directions differ by {worst:.1g}" if worst >= 0 else "none is declared"


def _invariant_gradient(w: Tensor) -> Tensor:
    """∇ of ½ wᵀAw / wᵀw, A = diag(0, …, 1): [d] → [d]."""
    a, square = torch.linspace(0, 1, len(w), dtype=w.dtype), w @ w
    return (a * w - (w @ (a * w)) / square * w) / square
