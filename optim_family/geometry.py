"""The geometry of an optimizer: its metric P, its stability threshold and its weight decay.

A small oscillation along the top eigenvector of P^{-1/2} H P^{-1/2} neither grows nor dies relative to
the weights, which themselves shrink by the decay, when the eigenvalue is at the threshold.

Source of the thresholds without decay: J. Cohen et al., "Gradient descent on neural networks typically
occurs at the edge of stability" (2021), appendix B, and "Adaptive gradient methods at the edge of
stability" (2022); with decay they follow from the same characteristic polynomials at z = −z₀, z₀ being
the factor by which a weight without gradient shrinks in a step.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor

from optim_family.norms import Norm
from optim_family.operators import Diagonal, Scalar, SymmetricOperator
from optim_family.space import norm


class Metric(ABC):
    """A positive definite preconditioner P on ℝᵈ; the step is −η P⁻¹ g.

    Attributes:
        dim: d.
        scale: the number c where P = c I, so that every sharpness has a threshold; None otherwise.
    """

    dim: int
    scale: float | None = None

    @abstractmethod
    def power(self, exponent: float) -> SymmetricOperator:
        """P to a real power, an operator on ℝᵈ."""


@final
class ScalarMetric(Metric):
    """P = c I.

    Raises:
        ValueError: c is not finite or not above zero.
    """

    scale: float

    def __init__(self, dim: int, scale: float = 1.0) -> None:
        if not 0 < scale < float("inf"):
            raise ValueError(f"a metric must be positive and finite; got P = {scale} I.")
        self.dim, self.scale = dim, scale

    def power(self, exponent: float) -> SymmetricOperator:
        """c^exponent I."""
        return Scalar(self.dim, self.scale**exponent)


@final
class DiagonalMetric(Metric):
    """P = diag(p), from its diagonal p [d].

    Args:
        diagonal: p.
        rounding: the relative change of each entry by the rounding of the gradient, [d], if it is known.

    Raises:
        ValueError: an entry of p is not finite or not above zero.
    """

    def __init__(self, diagonal: Tensor, rounding: Tensor | None = None) -> None:
        low, high = torch.stack(torch.aminmax(diagonal)).tolist()  # one synchronisation
        if not (low > 0 and high < float("inf")):
            raise ValueError(
                f"a metric must be positive and finite; its diagonal reaches from {low:.3g} to {high:.3g}. "
                "A weight whose gradient has always been zero needs ε > 0."
            )
        self.dim, self.diagonal, self.rounding = diagonal.numel(), diagonal, rounding

    def power(self, exponent: float) -> SymmetricOperator:
        """diag(p^exponent)."""
        return Diagonal(self.diagonal**exponent)


@final
class UnknownMetric(Metric):
    """No fixed positive definite P describes the step, or none is known; `power` gives the reason.

    The raw and the spherical sharpness can still be measured, without a threshold.
    """

    def __init__(self, dim: int, reason: str) -> None:
        self.dim, self.reason = dim, reason

    def power(self, exponent: float) -> SymmetricOperator:
        """Raise, always.

        Raises:
            ValueError: the reason.
        """
        raise ValueError(f"there is no metric: {self.reason}; measure raw or spherical instead.")


@final
@dataclass(frozen=True)
class Decay:
    """Weight decay: the fraction s = ηλ removed in a step.

    Attributes:
        shrink: s, dimensionless.
        coupled: λw is added to the gradient, and passes through metric and momentum; otherwise the
            weights are multiplied by 1 − s, apart from the gradient step.
    """

    shrink: float
    coupled: bool = False


@final
@dataclass(frozen=True)
class Geometry:
    """The preconditioner or the norm, the stability threshold and the decay of one optimizer's next step.

    Attributes:
        metric: P; an `UnknownMetric` for an optimizer that declares a norm.
        threshold: for λ₁(P^{-1/2} H(w) P^{-1/2}), or for the generalised sharpness in the norm; unit
            1 / learning rate; infinite where there is none.
        decay: the weight decay; None where it is not known.
        norm: N of the steps, in place of a metric.
        normalized: the step is −η s with N(s) = 1, whatever the size of the gradient: the threshold is that
            of S_N / N*(g). Otherwise it is −η N*(g) s, and the threshold is that of S_N.
        orbit: the threshold belongs to the orbit of period 2 in which the optimizer ends on a quadratic of
            any curvature, and depends on its size. A normalised step always has such an orbit.
        no_threshold: why the threshold is infinite, if the optimizer has a norm and no threshold.
        momentum: β of the heavy ball or of an average, where the step is one in the metric.
        inexact: how far the step may be from the maximiser of the norm, and the ratio from 1 at the edge:
            relative, zero for an exact rule.
    """

    metric: Metric
    threshold: float
    decay: Decay | None
    norm: Norm | None = None
    normalized: bool = False
    orbit: bool = False
    no_threshold: str = ""
    momentum: float = 0.0
    inexact: float = 0.0

    @classmethod
    def in_norm(
        cls,
        norm: Norm,
        threshold: float,
        decay: Decay | None,
        *,
        normalized: bool = True,
        no_threshold: str = "",
        inexact: float = 0.0,
    ) -> Self:
        """The geometry of an optimizer that moves by steepest descent in a norm, which has no metric."""
        metric = UnknownMetric(norm.dim, f"its steps have the norm {type(norm).__name__}")
        return cls(metric, threshold, decay, norm, normalized, normalized, no_threshold, inexact=inexact)

    @property
    def step_norm(self) -> Norm | None:
        """N, declared or that of the metric; None if the optimizer has neither."""
        if self.norm is not None:
            return self.norm
        return None if isinstance(self.metric, UnknownMetric) else MetricNorm(self.metric)


@final
class MetricNorm(Norm):
    """N(d) = ‖P^{1/2}d‖₂, N*(g) = ‖P^{-1/2}g‖₂, s = P⁻¹g / N*(g); ‖·‖₂ itself for P = I."""

    def __init__(self, metric: Metric) -> None:
        self.dim, self.metric = metric.dim, metric

    def value(self, step: Tensor) -> float:
        """‖P^{1/2}d‖₂."""
        return float(norm(self.metric.power(0.5) @ step))

    def dual(self, gradient: Tensor) -> float:
        """‖P^{-1/2}g‖₂."""
        return float(norm(self.metric.power(-0.5) @ gradient))

    def maximizer(self, gradient: Tensor) -> Tensor:
        """P⁻¹g / N*(g)."""
        return (self.metric.power(-1.0) @ gradient) / (self.dual(gradient) or 1.0)


def momentum_threshold(lr: float, *, beta: float = 0.0, shrink: float = 0.0) -> float:
    """2 (1 − s + β) / η: gradient descent with heavy-ball momentum.

    The same for both kinds of decay: decoupled, w ← (1 − s) w − η m with m ← β m + g, and coupled,
    m ← β m + g + λ w (up to s = (1 − √β)², where the decay itself begins to oscillate).
    For an average m ← β m + (1 − β) g, use lr · (1 − β).

    Args:
        lr: learning rate η.
        beta: momentum β.
        shrink: s = ηλ.
    """
    return 2 * (1 - shrink + beta) / lr


def nesterov_threshold(lr: float, *, beta: float = 0.0, shrink: float = 0.0) -> float:
    """(z + 1)(z + β) / (η ((1 + β) z + β)) − s/η: Nesterov's momentum with coupled decay, as in torch.

    z, the larger root of z² − (1 + β)(1 − s) z + β (1 − s), is the factor by which a weight without
    gradient shrinks in a step; without decay z = 1 and the threshold is (2 + 2β) / ((1 + 2β) η).
    The arguments are those of `momentum_threshold`.
    """
    b, c = (1 + beta) * (1 - shrink), beta * (1 - shrink)
    z = (b + math.sqrt(max(b * b - 4 * c, 0.0))) / 2
    return ((z + 1) * (z + beta) / ((1 + beta) * z + beta) - shrink) / lr


def normalized_threshold(lr: float, *, shrink: float = 0.0) -> float:
    """(2 − s) / η: a normalised step without momentum, w ← (1 − s) w − η s(g).

    On ½ h w² its orbit of period 2 has the amplitude η / (2 − s), at which h / |g| is this number.
    The arguments are those of `momentum_threshold`.

    Source: R. Islamov et al., arXiv:2603.05002 (2026), without decay.
    """
    return (2 - shrink) / lr


def sam_edge(threshold: float, gradient_norm: float, radius: float) -> float:
    """‖g‖/(2r) · (√(1 + 4rT/‖g‖) − 1): SAM, in the unit of T; T itself where ‖g‖ or r is 0.

    A larger gradient or a smaller r moves the edge up to T.

    Args:
        threshold: T, the curvature of an orbit of period 2 of the inner optimizer.
        gradient_norm: ‖g‖ at the weights.
        radius: r, the length of the step uphill.

    Source: P. Long, P. Bartlett, "Sharpness-aware minimization and the edge of stability" (2024).
    """
    if not gradient_norm * radius:
        return threshold
    return gradient_norm / (2 * radius) * (math.sqrt(1 + 4 * radius * threshold / gradient_norm) - 1)


def equilibrium_rotation(geometry: Geometry, lr: float) -> float | None:
    """√(2 s (1 − β)/(1 + β)): the angle in radians by which the weights turn in a step, in equilibrium.

    Random gradients at right angles to the weights lengthen them, and decay shortens them by the fraction s
    in a step: s = ηλ, or ηλ/(1 − β) where a heavy ball sums up a coupled decay. Thus √(2ηλ) for SGD,
    √(2ηλ/(1 + β)) with momentum, √(2ηλ (1 − β₁)/(1 + β₁)) for AdamW. It holds for a scale-invariant loss, to
    a relative O(√s).

    Args:
        geometry: of the optimizer.
        lr: η.

    Returns:
        None without decay, or where no such equilibrium is known: a decay that passes through a metric other
        than c I, or a step that is neither gradient descent, heavy ball, an average, nor a normalised step
        without momentum.

    Source: A. Kosson, B. Messmer, M. Jaggi, "Rotational equilibrium: how weight decay balances learning
    across neural networks" (2024).
    """
    decay, beta = geometry.decay, geometry.momentum
    if decay is None or not 0 < decay.shrink < 1 or (decay.coupled and geometry.metric.scale is None):
        return None
    if geometry.norm is not None:
        known = [normalized_threshold(lr, shrink=decay.shrink)] if geometry.normalized else []
    else:
        rates = [] if geometry.orbit else [lr, lr * (1 - beta)]
        known = [momentum_threshold(rate, beta=beta, shrink=decay.shrink) for rate in rates]
    if not any(math.isclose(geometry.threshold, threshold, rel_tol=1e-9) for threshold in known):
        return None
    shrink = decay.shrink / (1 - beta) if decay.coupled else decay.shrink
    return math.sqrt(2 * shrink * (1 - beta) / (1 + beta))
