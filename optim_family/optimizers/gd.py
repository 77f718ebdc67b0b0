"""Gradient descent with weight decay: on a scale-invariant loss, projected gradient descent on the sphere.

    m ← β m + g                    β = 0 by default: m = g
    w ← (1 − ηλ) w − η m

For a scale-invariant loss and β = 0 the direction θ = w/ρ moves as θ ← (θ − ℓ ∇L(θ)) / ‖·‖ with the
effective learning rate ℓ = η / ((1 − ηλ) ρ²), which settles where ℓ λ₁(∇²L(θ)) = 2.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022. Heavy ball: B. Polyak (1964).
"""

from typing import Annotated, Any, final

import torch
from pydantic import Field
from torch import Tensor

from optim_family.geometry import Decay, Geometry, ScalarMetric, momentum_threshold
from optim_family.optimizers.base import FamilyOptimizer, HyperParameters, State, Values, heavy_ball


@final
class GDHyper(HyperParameters):
    """The hyper-parameters of gradient descent."""

    lr: Annotated[float, Field(gt=0, description="learning rate η")] = 0.1
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ, decoupled")] = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1, description="heavy ball β", examples=[0.9])] = 0.0


@final
class GD(FamilyOptimizer):
    """Gradient descent, decoupled decay; P = I, threshold 2 (1 − ηλ + β) / η."""

    Hyper = GDHyper
    needs_norms = False

    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """m ← β m + g ;  w ← (1 − ηλ) w − η m."""
        m = grad
        if h["momentum"]:
            m = state["m"] = h["momentum"] * state.get("m", torch.zeros_like(w)) + grad
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(m, alpha=h["lr"])

    def update_all(self, weights: list[Tensor], gradients: list[Any], states: list[State], h: Values) -> None:
        """The same of all tensors at once."""
        m = heavy_ball(gradients, states, h["momentum"])
        torch._foreach_mul_(weights, 1 - h["lr"] * h["weight_decay"])
        torch._foreach_sub_(weights, m, alpha=h["lr"])

    def geometry(self) -> Geometry:
        """P = I."""
        lr, beta = self.values["lr"], self.values["momentum"]
        decay = Decay(lr * self.values["weight_decay"])
        threshold = momentum_threshold(lr, beta=beta, shrink=decay.shrink)
        return Geometry(ScalarMetric(self.dim), threshold, decay, momentum=beta)

    def rescaling(self) -> tuple[float, float]:
        """(w, η, λ) → (cw, c²η, λ/c²)."""
        return 2.0, -2.0
