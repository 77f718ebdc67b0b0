"""Sign descent: every weight moves by the same amount.

    w ← (1 − ηλ) w − η sign(g)

It is normalised steepest descent in the maximum norm N(d) = max |dᵢ|, whose dual is N*(g) = Σ |gᵢ|. On a
quadratic it ends in an orbit of period 2, at S_N / N*(g) = (2 − ηλ)/η for every curvature.

Source: J. Bernstein et al., "signSGD: compressed optimisation for non-convex problems" (2018); threshold:
R. Islamov et al., arXiv:2603.05002 (2026), without decay.
"""

from typing import Annotated, Any, final

import torch
from pydantic import Field
from torch import Tensor

from optim_family.geometry import Decay, Geometry, normalized_threshold
from optim_family.norms import MaxNorm
from optim_family.optimizers.base import FamilyOptimizer, HyperParameters, State, Values


@final
class SignGDHyper(HyperParameters):
    """The hyper-parameters of sign descent."""

    lr: Annotated[float, Field(gt=0, description="learning rate η, the step of every weight")] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ, decoupled")] = 0.0


@final
class SignGD(FamilyOptimizer):
    """Sign descent; N the maximum norm, threshold (2 − ηλ) / η of S_N / N*(g)."""

    Hyper = SignGDHyper
    needs_norms = False

    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """w ← (1 − ηλ) w − η sign(g)."""
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(grad.sign(), alpha=h["lr"])

    def update_all(self, weights: list[Tensor], gradients: list[Any], states: list[State], h: Values) -> None:
        """The same of all tensors at once."""
        torch._foreach_mul_(weights, 1 - h["lr"] * h["weight_decay"])
        torch._foreach_sub_(weights, torch._foreach_sign(gradients), alpha=h["lr"])

    def geometry(self) -> Geometry:
        """The maximum norm."""
        lr, decay = self.values["lr"], Decay(self.values["lr"] * self.values["weight_decay"])
        return Geometry.in_norm(MaxNorm(self.dim), normalized_threshold(lr, shrink=decay.shrink), decay)

    def rescaling(self) -> tuple[float, float]:
        """(w, η, λ) → (cw, cη, λ/c), since signs do not depend on the size of the gradient."""
        return 1.0, -1.0
