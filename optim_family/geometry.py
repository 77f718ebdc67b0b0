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
from typing import final

import torch
from torch import Tensor

from optim_family.operators import Diagonal, Scalar, SymmetricOperator


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

    Raises:
        ValueError: an entry is not finite or not above zero.
    """

    def __init__(self, diagonal: Tensor) -> None:
        low, high = torch.stack(torch.aminmax(diagonal)).tolist()  # one synchronisation
        if not (low > 0 and high < float("inf")):
            raise ValueError(
                f"a metric must be positive and finite; its diagonal reaches from {low:.3g} to {high:.3g}. "
                "A weight whose gradient has always been zero needs ε > 0."
            )
        self.dim, self.diagonal = diagonal.numel(), diagonal

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
    """The preconditioner, the stability threshold and the decay of one optimizer, for its next step.

    Attributes:
        metric: P.
        threshold: for λ₁(P^{-1/2} H(w) P^{-1/2}); unit 1 / learning rate.
        decay: the weight decay; None where it is not known.
    """

    metric: Metric
    threshold: float
    decay: Decay | None


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
