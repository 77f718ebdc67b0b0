"""Stochastic gradient descent as in torch: coupled decay, Polyak's or Nesterov's momentum.

    g ← g + λ w                    coupled: the decay passes through the momentum
    m ← β m + g
    w ← w − η m                    Polyak
    w ← w − η (g + β m)            Nesterov

The threshold is that of the full batch. The smaller the mini-batch, the lower the sharpness settles:
below the threshold in some settings, above it in others.

Source: B. Polyak (1964); Y. Nesterov (1983); I. Sutskever et al., "On the importance of initialization
and momentum in deep learning" (2013).
"""

from typing import Annotated, Any, final

import torch
from pydantic import Field, model_validator
from torch import Tensor

from optim_family.geometry import Decay, Geometry, ScalarMetric, momentum_threshold, nesterov_threshold
from optim_family.optimizers.base import FamilyOptimizer, HyperParameters, State, Values, heavy_ball


@final
class SGDHyper(HyperParameters):
    """The hyper-parameters of stochastic gradient descent."""

    lr: Annotated[float, Field(gt=0, description="learning rate η")] = 0.1
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ, coupled")] = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1, description="momentum β", examples=[0.9])] = 0.0
    nesterov: Annotated[bool, Field(description="Nesterov's momentum instead of Polyak's")] = False

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "SGDHyper":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


@final
class SGD(FamilyOptimizer):
    """Stochastic gradient descent, coupled decay; P = I, threshold 2 (1 − ηλ + β) / η.

    Nesterov's momentum has the threshold `optim_family.geometry.nesterov_threshold`.
    """

    Hyper = SGDHyper
    batch_size = 50
    needs_norms = False

    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """m ← β m + g + λ w ;  w ← w − η m, or w ← w − η (g + λ w + β m)."""
        g = grad.add(w, alpha=h["weight_decay"])
        m = g
        if h["momentum"]:
            m = state["m"] = h["momentum"] * state.get("m", torch.zeros_like(w)) + g
        w.sub_(g + h["momentum"] * m if h["nesterov"] else m, alpha=h["lr"])

    def update_all(self, weights: list[Tensor], gradients: list[Any], states: list[State], h: Values) -> None:
        """The same of all tensors at once."""
        g = torch._foreach_add(gradients, weights, alpha=h["weight_decay"])
        m = heavy_ball(g, states, h["momentum"])
        step = torch._foreach_add(g, torch._foreach_mul(m, h["momentum"])) if h["nesterov"] else m
        torch._foreach_sub_(weights, step, alpha=h["lr"])

    def geometry(self) -> Geometry:
        """P = I."""
        lr, beta = self.values["lr"], self.values["momentum"]
        decay = Decay(lr * self.values["weight_decay"], coupled=True)
        if self.values["nesterov"]:
            threshold = nesterov_threshold(lr, beta=beta, shrink=decay.shrink)
            return Geometry(ScalarMetric(self.dim), threshold, decay)
        threshold = momentum_threshold(lr, beta=beta, shrink=decay.shrink)
        return Geometry(ScalarMetric(self.dim), threshold, decay, momentum=beta)

    def rescaling(self) -> tuple[float, float]:
        """(w, η, λ) → (cw, c²η, λ/c²)."""
        return 2.0, -2.0
