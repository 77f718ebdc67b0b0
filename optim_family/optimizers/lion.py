"""Lion: the sign of a momentum.

    c = β₁ m + (1 − β₁) g
    w ← (1 − ηλ) w − η sign(c)
    m ← β₂ m + (1 − β₂) g

For β₁ = 0 it is sign descent, with its norm and its threshold. With momentum the steps have the same norm,
N(d) = max |dᵢ|, but no threshold is known: the reading is S_N / N*(g) without a ratio.

Source: X. Chen et al., "Symbolic discovery of optimization algorithms" (2023).
"""

import math
from typing import Annotated, Any, final

import torch
from pydantic import Field
from torch import Tensor

from optim_family.geometry import Decay, Geometry, normalized_threshold
from optim_family.norms import MaxNorm
from optim_family.optimizers.base import FamilyOptimizer, HyperParameters, State, Values, weighted_sums


@final
class LionHyper(HyperParameters):
    """The hyper-parameters of Lion."""

    lr: Annotated[float, Field(gt=0, description="learning rate η, the step of every weight")] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ, decoupled")] = 0.0
    beta1: Annotated[float, Field(ge=0, lt=1, description="share β₁ of m in the sign", examples=[0.0])] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="memory of the momentum β₂")] = 0.99


@final
class Lion(FamilyOptimizer):
    """The sign of a momentum; N the maximum norm, threshold (2 − ηλ) / η for β₁ = 0."""

    Hyper = LionHyper
    needs_norms = False

    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """The equations above."""
        m = state.get("m", torch.zeros_like(w))
        c = h["beta1"] * m + (1 - h["beta1"]) * grad
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(c.sign(), alpha=h["lr"])
        state["m"] = h["beta2"] * m + (1 - h["beta2"]) * grad

    def update_all(self, weights: list[Tensor], gradients: list[Any], states: list[State], h: Values) -> None:
        """The same of all tensors at once."""
        old = [state.get("m", torch.zeros_like(w)) for state, w in zip(states, weights, strict=True)]
        c = weighted_sums(old, gradients, h["beta1"])
        torch._foreach_mul_(weights, 1 - h["lr"] * h["weight_decay"])
        torch._foreach_sub_(weights, torch._foreach_sign(c), alpha=h["lr"])
        for state, m in zip(states, weighted_sums(old, gradients, h["beta2"]), strict=True):
            state["m"] = m

    def geometry(self) -> Geometry:
        """The maximum norm; with momentum no threshold."""
        lr, decay = self.values["lr"], Decay(self.values["lr"] * self.values["weight_decay"])
        if self.values["beta1"]:
            reason = f"with momentum (β₁ = {self.values['beta1']:g}) none is known"
            return Geometry.in_norm(MaxNorm(self.dim), math.inf, decay, no_threshold=reason)
        return Geometry.in_norm(MaxNorm(self.dim), normalized_threshold(lr, shrink=decay.shrink), decay)

    def rescaling(self) -> tuple[float, float]:
        """(w, η, λ) → (cw, cη, λ/c), since signs do not depend on the size of the gradient."""
        return 1.0, -1.0
