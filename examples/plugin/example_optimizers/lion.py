"""Lion: the sign of a momentum.

    c = β₁ m + (1 − β₁) g
    w ← (1 − ηλ) w − η sign(c)
    m ← β₂ m + (1 − β₂) g

Every weight moves by η, whatever its gradient. On a quadratic ½hw² the sign does not depend on h: Lion takes
the same path for every curvature, so that there is no threshold. With P = diag|c| the step is P⁻¹c, but this
P changes with c at every step. With a frozen P the update would not be Lion's, and the sharpness in the
changing P would show where Lion oscillates, not how curved the loss is. The class therefore declares no
metric, and the spherical sharpness is measured without a threshold.

Source: X. Chen et al., "Symbolic discovery of optimization algorithms" (2023).
"""

import math
from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

from optim_family.geometry import Decay, Geometry, UnknownMetric
from optim_family.optimizers.base import FamilyOptimizer, HyperParameters, State, Values


@final
class LionHyper(HyperParameters):
    """The hyper-parameters of Lion."""

    lr: Annotated[float, Field(gt=0, description="learning rate η, the length of every step of a weight")] = (
        1e-3
    )
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ, decoupled")] = 0.0
    beta1: Annotated[float, Field(ge=0, le=1, description="share β₁ of the momentum in the sign")] = 0.9
    beta2: Annotated[float, Field(ge=0, le=1, description="memory of the momentum β₂")] = 0.99


@final
class Lion(FamilyOptimizer):
    """The sign of a momentum; it has no metric and no threshold."""

    Hyper = LionHyper

    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """The three lines above."""
        m = state.get("m", torch.zeros_like(w))
        c = h["beta1"] * m + (1 - h["beta1"]) * grad
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(c.sign(), alpha=h["lr"])
        state["m"] = h["beta2"] * m + (1 - h["beta2"]) * grad

    def geometry(self) -> Geometry:
        """The decay; the metric is unknown."""
        reason = "Lion moves every weight by η, whatever its gradient"
        decay = Decay(self.values["lr"] * self.values["weight_decay"])
        return Geometry(UnknownMetric(self.dim, reason), math.inf, decay)

    def rescaling(self) -> tuple[float, float]:
        """(w, η, λ) → (cw, cη, λ/c), since signs do not depend on the size of the gradient."""
        return 1.0, -1.0
