import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from optim_family.geometry import (
    Decay,
    DiagonalMetric,
    Geometry,
    Metric,
    ScalarMetric,
    momentum_threshold,
    nesterov_threshold,
)

# One step (w, m) → (w, m) on ½ h w², from (w, m, h, η, β, s).
Step = Callable[[float, float, float, float, float, float], tuple[float, float]]


def gradient_descent(w: float, m: float, h: float, lr: float, beta: float, s: float) -> tuple[float, float]:
    return (1 - s) * w - lr * h * w, 0.0


def heavy_ball(w: float, m: float, h: float, lr: float, beta: float, s: float) -> tuple[float, float]:
    m = beta * m + h * w
    return (1 - s) * w - lr * m, m


def polyak_coupled(w: float, m: float, h: float, lr: float, beta: float, s: float) -> tuple[float, float]:
    m = beta * m + h * w + s / lr * w
    return w - lr * m, m


def nesterov_coupled(w: float, m: float, h: float, lr: float, beta: float, s: float) -> tuple[float, float]:
    g = h * w + s / lr * w
    m = beta * m + g
    return w - lr * (g + beta * m), m


def averaged(w: float, m: float, h: float, lr: float, beta: float, s: float) -> tuple[float, float]:
    m = beta * m + (1 - beta) * h * w
    return (1 - s) * w - lr * m, m


def averaged_nesterov(w: float, m: float, h: float, lr: float, beta: float, s: float) -> tuple[float, float]:
    g = (1 - beta) * h * w
    m = beta * m + g
    return w - lr * (g + beta * m), m


def growth(step: Step, h: float, lr: float, beta: float, s: float) -> float:
    """log of the factor by which (w, ηm) grows in a step, in the long run."""
    w, m, total = 1.0, 0.3 / lr, 0.0
    for i in range(600):
        w, m = step(w, m, h, lr, beta, s)
        size = math.hypot(w, lr * m)
        w, m = w / size, m / size
        total += math.log(size) if i >= 300 else 0.0
    return total / 300


def edge(step: Step, guess: float, lr: float, beta: float, s: float, relative: bool = True) -> float:
    """The curvature at which the oscillation grows as the weights do, or not at all, by bisection."""
    shrinking = growth(step, 0.0, lr, beta, s) if relative else 0.0
    low, high = 0.8 * guess, 1.25 * guess
    assert growth(step, low, lr, beta, s) < shrinking < growth(step, high, lr, beta, s)
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if growth(step, middle, lr, beta, s) < shrinking else (low, middle)
    return (low + high) / 2


# --- thresholds -------------------------------------------------------------------------------------------

TABLE = [  # at η = 1, β = 0.9, no decay
    (gradient_descent, momentum_threshold(1.0), 2.0),
    (heavy_ball, momentum_threshold(1.0, beta=0.9), 3.8),
    (polyak_coupled, momentum_threshold(1.0, beta=0.9), 3.8),
    (nesterov_coupled, nesterov_threshold(1.0, beta=0.9), 3.8 / 2.8),
    (averaged, momentum_threshold(0.1, beta=0.9), 38.0),
    (averaged_nesterov, nesterov_threshold(0.1, beta=0.9), 38 / 2.8),
]


@pytest.mark.parametrize(
    ("step", "threshold", "expected"), TABLE, ids=lambda case: getattr(case, "__name__", "")
)
def test_thresholds_without_decay_are_those_of_the_literature(
    step: Step, threshold: float, expected: float
) -> None:
    assert threshold == pytest.approx(expected, rel=1e-12)
    assert edge(step, expected, 1.0, 0.9, 0.0) == pytest.approx(threshold, rel=1e-3)


DECAYED = [
    (gradient_descent, momentum_threshold, 1.0, 0.0, 0.2),
    (heavy_ball, momentum_threshold, 1.0, 0.5, 0.2),
    (heavy_ball, momentum_threshold, 1.0, 0.9, 0.02),
    (polyak_coupled, momentum_threshold, 1.0, 0.5, 0.06),
    (polyak_coupled, momentum_threshold, 1.0, 0.9, 0.002),
    (nesterov_coupled, nesterov_threshold, 1.0, 0.5, 0.08),
    (nesterov_coupled, nesterov_threshold, 1.0, 0.9, 0.002),
    (averaged, momentum_threshold, 0.5, 0.5, 0.2),
    (averaged, momentum_threshold, 0.1, 0.9, 0.02),
]


@pytest.mark.parametrize("lr", [0.03, 1.0])
@pytest.mark.parametrize(("step", "formula", "fraction", "beta", "s"), DECAYED)
def test_at_the_threshold_an_oscillation_shrinks_exactly_as_the_weights_do(
    step: Step, formula: Callable[..., float], fraction: float, beta: float, s: float, lr: float
) -> None:
    threshold = formula(lr * fraction, beta=beta, shrink=s)
    assert edge(step, threshold, lr, beta, s) == pytest.approx(threshold, rel=2e-4)
    assert formula(lr * fraction, beta=beta) > threshold * (1 + s / 4)  # so that the decay is really tested


def test_coupled_decay_stands_still_absolutely_at_λ_more() -> None:
    """(2 + 2β)/η − λ keeps the amplitude; relative to the shrinking weights that already grows."""
    lr, beta, s = 0.1, 0.5, 0.06
    absolute = edge(polyak_coupled, (2 + 2 * beta) / lr, lr, beta, s, relative=False)
    assert absolute == pytest.approx((2 + 2 * beta) / lr - s / lr, rel=2e-4)
    assert momentum_threshold(lr, beta=beta, shrink=s) == pytest.approx(absolute - s / lr, rel=2e-4)


def test_nesterov_without_momentum_is_gradient_descent() -> None:
    assert nesterov_threshold(0.3, shrink=0.1) == pytest.approx(
        momentum_threshold(0.3, shrink=0.1), rel=1e-12
    )


# --- metrics ----------------------------------------------------------------------------------------------

P = torch.tensor([0.25, 1.0, 7.0], dtype=torch.float64)


@pytest.mark.parametrize("metric", [ScalarMetric(3, 7.0), DiagonalMetric(P)], ids=["scalar", "diagonal"])
def test_powers_of_a_metric_multiply_as_powers_do(metric: Metric) -> None:
    half, inverse, identity = (
        metric.power(-0.5).dense(),
        metric.power(-1).dense(),
        torch.eye(3, dtype=torch.float64),
    )
    torch.testing.assert_close(half @ half, inverse, rtol=1e-14, atol=0)
    torch.testing.assert_close(metric.power(1).dense() @ inverse, identity, rtol=1e-14, atol=0)
    assert torch.equal(metric.power(0).dense(), identity)


def test_a_metric_is_the_matrix_it_says() -> None:
    assert torch.equal(DiagonalMetric(P).power(1).dense(), torch.diag(P))
    assert torch.equal(ScalarMetric(3, 7.0).power(1).dense(), 7 * torch.eye(3, dtype=torch.float64))
    assert torch.equal(ScalarMetric(3).power(-0.5).dense(), torch.eye(3, dtype=torch.float64))


def test_only_a_multiple_of_the_identity_has_a_scale() -> None:
    assert ScalarMetric(3, 7.0).scale == 7.0
    assert ScalarMetric(3).scale == 1.0
    assert DiagonalMetric(P).scale is None


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_metric_must_be_positive_and_finite(bad: float) -> None:
    with pytest.raises(ValueError, match=f"positive and finite; got P = {bad} I"):
        ScalarMetric(3, bad)
    with pytest.raises(ValueError, match=r"positive and finite; its diagonal reaches from .* needs ε > 0"):
        DiagonalMetric(torch.tensor([1.0, bad, 2.0]))


def test_a_geometry_cannot_be_changed_after_the_fact() -> None:
    geometry: Any = Geometry(ScalarMetric(3), 2.0, Decay(0.1))
    assert geometry.decay == Decay(0.1, coupled=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        geometry.threshold = 3.0
