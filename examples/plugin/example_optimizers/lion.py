"""Lion: the sign of a momentum.

    c = β₁ m + (1 − β₁) g
    w ← (1 − ηλ) w − η sign(c)
    m ← β₂ m + (1 − β₂) g

Every weight moves by η, whatever its gradient: no quadratic form describes the step, and the class declares
the norm of its steps instead, N(d) = max |dᵢ|. Without momentum (β₁ = 0) it is normalised steepest descent in
this norm, at S_N / N*(g) = (2 − ηλ)/η. With momentum no threshold is known, and the class says so: the
generalised sharpness is measured without a ratio.

Source: X. Chen et al., "Symbolic discovery of optimization algorithms" (2023).
"""

import math
from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

from optim_family.geometry import Decay, Geometry, normalized_threshold
from optim_family.norms import MaxNorm
from optim_family.optimizers.base import FamilyOptimizer, HyperParameters, State, Values


@final
class LionHyper(HyperParameters):
    """The hyper-parameters of Lion."""

    lr: Annotated[float, Field(gt=0, description="learning rate η, the length of every step of a weight")] = (
        1e-3
    )
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ, decoupled")] = 0.0
    beta1: Annotated[float, Field(ge=0, le=1, description="share β₁ of m in the sign", examples=[0.0])] = 0.9
    beta2: Annotated[float, Field(ge=0, le=1, description="memory of the momentum β₂")] = 0.99


@final
class Lion(FamilyOptimizer):
    """The sign of a momentum; its steps have the maximum norm."""

    Hyper = LionHyper

    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """The three lines above."""
        m = state.get("m", torch.zeros_like(w))
        c = h["beta1"] * m + (1 - h["beta1"]) * grad
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(c.sign(), alpha=h["lr"])
        state["m"] = h["beta2"] * m + (1 - h["beta2"]) * grad

    def geometry(self) -> Geometry:
        """The maximum norm; with momentum no threshold."""
        lr, norm = self.values["lr"], MaxNorm(self.dim)
        decay = Decay(lr * self.values["weight_decay"])
        if self.values["beta1"]:
            return Geometry.in_norm(norm, math.inf, decay, no_threshold="with momentum none is known")
        return Geometry.in_norm(norm, normalized_threshold(lr, shrink=decay.shrink), decay)

    def rescaling(self) -> tuple[float, float]:
        """(w, η, λ) → (cw, cη, λ/c), since signs do not depend on the size of the gradient."""
        return 1.0, -1.0
