"""The conformance suite: what an optimizer declares about itself, tested against its real steps.

    import optim_family.testing
    from my_package.lion import Lion

    @pytest.mark.parametrize("check", optim_family.testing.CHECKS, ids=lambda check: check.__name__)
    def test_lion(check):
        check(Lion)

Every check builds the optimizer for each combination of its hyper-parameters' choices (literals, booleans
and the `examples` of a field), with weight decay and without, in float64 on a quadratic or on a
scale-invariant loss. It raises an AssertionError that names the declaration, the hyper-parameters, and what
the real step did.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optim_family.optimizers.base import FamilyOptimizer
from optim_family.testbench import LR, Bench, gradients, variants, with_decay

Check = Callable[[type[FamilyOptimizer]], None]

SETTLING = 60  # steps until the momentum that the warm-up left has died out
OSCILLATION = 300  # steps in which 0.5 % too much or too little curvature shows


def check_threshold_is_sharp(optimizer: type[FamilyOptimizer]) -> None:
    """With P held still, curvature 0.5 % below the threshold dies out and 0.5 % above it grows.

    Relative to a weight without gradient, which the decay shrinks too. The loss is ½ wᵀHw with
    H = P^{1/2} U diag(h, h/10, …, 0) Uᵀ P^{1/2}, so that λ₁(P^{-1/2} H P^{-1/2}) = h.
    """
    for values in with_decay(optimizer):
        declared = Bench.build(optimizer, values).geometry().threshold
        growth = {factor: _growth(optimizer, values, factor) for factor in (0.995, 1.005)}
        assert growth[0.995] < 1 < growth[1.005], (
            f"{optimizer.__name__} declares the threshold {declared:.6g} with {values}; in up to "
            f"{OSCILLATION} real steps an oscillation changed by the factor "
            f"{growth[0.995]:.3g} at 0.995 times that curvature (should be below 1) and {growth[1.005]:.3g} "
            "at 1.005 times (above 1). Likely causes: momentum or the factor (1 − ηλ) missing in the "
            "threshold, or a metric that is not the P of the step (without its square root, say)."
        )


def _growth(optimizer: type[FamilyOptimizer], values: dict[str, Any], factor: float) -> float:
    """By what an oscillation at factor · threshold changes, compared with a weight without gradient."""
    bench = Bench.build(optimizer, values).warm_up()
    bench.set(**optimizer.freeze)
    geometry, dim = bench.geometry(), bench.space.dim
    root, inverse = (geometry.metric.power(e).dense() for e in (0.5, -0.5))  #                   [d, d]
    basis = torch.linalg.qr(next(gradients(dim * dim, 1, seed=2)).view(dim, dim)).Q
    spectrum = torch.zeros(dim, dtype=torch.float64)
    spectrum[:3] = geometry.threshold * torch.tensor([factor, 0.1, 0.01])
    hessian = root @ basis @ torch.diag(spectrum) @ basis.T @ root
    bench.space.assign(inverse @ (basis[:, 0] + 100 * basis[:, 3]))
    reference = 0.0
    for step in range(SETTLING + OSCILLATION):
        y = basis.T @ root @ bench.step(hessian @ bench.space.weights())
        size = float(abs(y[0] / y[3]))
        if step < SETTLING:
            reference = size
        elif not 1e-3 < size / reference < 1e3:  # on towards rounding errors nothing is learnt
            break
    return size / reference


def check_metric_is_that_of_the_step(optimizer: type[FamilyOptimizer]) -> None:
    """P is positive definite; held still, a change δ of the gradient changes the step by −c P⁻¹δ."""
    for values in with_decay(optimizer):
        bench = Bench.build(optimizer, values).warm_up()
        bench.set(**optimizer.freeze)
        gradient, delta = gradients(bench.space.dim, 2, seed=3)
        other = bench.copy()
        inverse = bench.geometry(gradient).metric.power(-1.0).dense()
        lowest = float(torch.linalg.eigvalsh(inverse)[0])
        assert lowest > 0, (
            f"{optimizer.__name__}'s metric has P⁻¹ with the eigenvalue {lowest:.3g}, {values}."
        )
        moved = other.step(gradient + 0.1 * delta) - bench.step(gradient)
        expected = -inverse @ delta
        cosine = float(moved @ expected / (moved.norm() * expected.norm()))
        assert cosine > 1 - 1e-8, (
            f"{optimizer.__name__}'s step answers a change of the gradient along a direction that has the "
            f"cosine {cosine:.6f} with −P⁻¹δ (should be 1), with {values}: the metric of geometry() is not "
            f"the P of the step, or `freeze` = {dict(optimizer.freeze)} does not hold it still."
        )


def check_freeze_holds_the_metric(optimizer: type[FamilyOptimizer]) -> None:
    """With the values of `freeze` in force, P does not move in 20 steps."""
    for values in variants(optimizer, lr=LR):
        bench = Bench.build(optimizer, values).warm_up()
        bench.set(**optimizer.freeze)
        metrics = []
        for gradient in gradients(bench.space.dim, 20, seed=4):
            metrics.append(bench.geometry(gradient).metric.power(1.0).dense())
            bench.optimizer.step()
        drift = float((metrics[-1] - metrics[0]).norm() / metrics[0].norm())
        assert drift < 1e-6, (
            f"{optimizer.__name__}'s metric moved by {drift:.2g} of itself in 19 steps although "
            f"`freeze` = {dict(optimizer.freeze)} should hold it still, with {values}."
        )


def check_decay_is_as_declared(optimizer: type[FamilyOptimizer]) -> None:
    """Decoupled: w ← (1 − s) w apart from the step. Coupled: λw is added to the gradient."""
    for values in variants(optimizer, lr=LR, weight_decay=0.3):
        bench, plain = Bench.build(optimizer, values), Bench.build(optimizer, values | {"weight_decay": 0.0})
        decay = Bench.build(optimizer, values).geometry().decay
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
                f"from the same step without decay plus that decay, with {values}."
            )


def check_geometry_follows_a_schedule(optimizer: type[FamilyOptimizer]) -> None:
    """geometry() reads the hyper-parameters in force, which schedulers change, and not `defaults`."""
    for values in with_decay(optimizer):
        bench = Bench.build(optimizer, values).warm_up(20)
        changes = {"lr": values["lr"] / 2, "weight_decay": values["weight_decay"] * 1.5}
        expected = bench.copy(**changes).geometry()
        bench.set(**changes)
        got = bench.geometry()
        assert got.threshold == expected.threshold and got.decay == expected.decay, (
            f"{optimizer.__name__} says threshold {got.threshold:.6g} and {got.decay} after a scheduler has "
            f"set {changes}; one made with these says {expected.threshold:.6g} and {expected.decay}. "
            "Read param_groups, not defaults."
        )


def check_geometry_changes_nothing(optimizer: type[FamilyOptimizer]) -> None:
    """Looking at the geometry leaves weights, state and the next steps as they were."""
    for values in with_decay(optimizer):
        watched, alone = Bench.build(optimizer, values), Bench.build(optimizer, values)
        for gradient in gradients(watched.space.dim, 10, seed=6):
            watched.geometry(gradient)
            watched.optimizer.step()
            assert torch.equal(watched.space.weights(), alone.step(gradient)), (
                f"{optimizer.__name__}.geometry() changes what the next step does, with {values}."
            )


def check_state_is_complete(optimizer: type[FamilyOptimizer]) -> None:
    """A new optimizer that loads state_dict() goes on bit for bit; nothing is remembered elsewhere."""
    for values in with_decay(optimizer):
        for steps in (0, 1, 7):
            first = Bench.build(optimizer, values).warm_up(steps)
            second = first.copy()
            for gradient in gradients(first.space.dim, 7, seed=7):
                assert torch.equal(first.step(gradient), second.step(gradient)), (
                    f"{optimizer.__name__} goes on differently after its state_dict() of step {steps} was "
                    f"loaded into a new one, with {values}: something it needs is not in `self.state`."
                )


def check_is_deterministic(optimizer: type[FamilyOptimizer]) -> None:
    """The same gradients give the same steps, bit for bit."""
    for values in with_decay(optimizer):
        a, b = (Bench.build(optimizer, values).warm_up(10) for _ in range(2))
        assert torch.equal(a.space.weights(), b.space.weights()), (
            f"{optimizer.__name__} takes different steps for the same gradients, with {values}."
        )


def check_one_parameter_group(optimizer: type[FamilyOptimizer]) -> None:
    """A second group is refused, with a reason: one threshold needs one learning rate."""
    bench = Bench.build(optimizer, variants(optimizer, lr=LR)[0])
    try:
        bench.optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)]})
    except ValueError:
        return
    raise AssertionError(
        f"{optimizer.__name__} accepts a second parameter group; its threshold is one number."
    )


def check_rescaling(optimizer: type[FamilyOptimizer]) -> None:
    """(w, η, λ) → (3w, 3ᵃη, 3ᵇλ) leaves 300 steps of w/‖w‖ on a scale-invariant loss as they were."""
    for values in with_decay(optimizer) + [v | {"eps": 0.0} for v in with_decay(optimizer) if "eps" in v]:
        bench = Bench.build(optimizer, values | {"lr": 0.01})
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
            f"runs differ by {error:.2g} (should be below 1e-10), with {values}."
        )


def _invariant_gradient(w: Tensor) -> Tensor:
    """∇ of ½ wᵀAw / wᵀw, A = diag(0, …, 1): [d] → [d]."""
    a, square = torch.linspace(0, 1, len(w), dtype=w.dtype), w @ w
    return (a * w - (w @ (a * w)) / square * w) / square


def findings(optimizer: type[FamilyOptimizer]) -> dict[str, str]:
    """Every check by its name, and what it found: nothing where the promise is kept."""
    return {check.__name__.removeprefix("check_"): _finding(check, optimizer) for check in CHECKS}


def _finding(check: Check, optimizer: type[FamilyOptimizer]) -> str:
    try:
        check(optimizer)
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


CHECKS: tuple[Check, ...] = (
    check_threshold_is_sharp,
    check_metric_is_that_of_the_step,
    check_freeze_holds_the_metric,
    check_decay_is_as_declared,
    check_geometry_follows_a_schedule,
    check_geometry_changes_nothing,
    check_state_is_complete,
    check_is_deterministic,
    check_one_parameter_group,
    check_rescaling,
)
