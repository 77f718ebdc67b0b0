"""RMSprop whose preconditioner depends only on the direction of the weights.

    ĝ = ρ g                        the gradient at w/‖w‖, for a scale-invariant loss
    v ← β₂ v + (1 − β₂) ĝ²         v starts at the first ĝ²: no bias to correct
    P = √v + ε
    w ← (1 − ηλ) w − η P⁻¹ g

Plain RMSprop averages g². On a scale-invariant loss g² grows as the weights shrink, so that weight decay
changes both the preconditioner and the step size. Averaging ĝ² makes P a function of the direction: then
(w, η, λ) → (cw, c²η, λ/c²) leaves the path of w/‖w‖ unchanged for every ε, as for gradient descent. v
includes the gradient of the present step; without it, an oscillation would slowly grow instead of decaying.

Source: T. Hinton, lecture 6e of "Neural networks for machine learning" (2012) for the plain form; K. Lyu,
Z. Li, S. Arora (NeurIPS 2022) for the scalar form as a schedule of the effective learning rate.
"""

from typing import Annotated, Any, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from optim_family.geometry import Decay, DiagonalMetric, Geometry, Metric, ScalarMetric, momentum_threshold
from optim_family.optimizers.base import FamilyOptimizer, HyperParameters, State, Values, averages


@final
class RMSpropHyper(HyperParameters):
    """The hyper-parameters of RMSprop."""

    lr: Annotated[float, Field(gt=0, description="learning rate η")] = 0.02
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ, decoupled")] = 0.05
    beta2: Annotated[float, Field(ge=0, le=1, description="memory of the second moment β₂")] = 0.99
    eps: Annotated[float, Field(ge=0, description="ε, added to the root")] = 1e-8
    moment: Annotated[
        Literal["diagonal", "scalar"], Field(description="v averages ĝ², or the squared norm ‖ĝ‖²")
    ] = "diagonal"
    norm: Annotated[
        Literal["global", "tensor"], Field(description="ρ over all trained weights, or over each tensor")
    ] = "global"
    preconditioning: Annotated[
        Literal["scale-invariant", "raw"], Field(description="ĝ = ρ g, or plain RMSprop with ĝ = g")
    ] = "scale-invariant"


@final
class RMSprop(FamilyOptimizer):
    """Scale-invariant RMSprop, decoupled decay; P = √v + ε, threshold 2 (1 − ηλ) / η."""

    Hyper = RMSpropHyper
    freeze = {"beta2": 1.0}

    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """v ← β₂ v + (1 − β₂) ĝ² ;  w ← (1 − ηλ) w − η g / (√v + ε)."""
        v = state["v"] = self._second_moment(w, grad, state, h)
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(grad / (v.sqrt() + h["eps"]), alpha=h["lr"])

    def update_all(self, weights: list[Tensor], gradients: list[Any], states: list[State], h: Values) -> None:
        """The same of all tensors at once; with one number v for several weights, one by one."""
        if h["moment"] != "diagonal" or h["norm"] != "global":
            return super().update_all(weights, gradients, states, h)
        invariant = h["preconditioning"] == "scale-invariant"
        g = torch._foreach_mul(gradients, self.rho) if invariant else gradients
        squares = torch._foreach_mul(g, g)
        v = averages([state.get("v") for state in states], squares, h["beta2"], first=1.0)
        for state, entry in zip(states, v, strict=True):
            state["v"] = entry
        p = torch._foreach_add(torch._foreach_sqrt(v), h["eps"])
        torch._foreach_mul_(weights, 1 - h["lr"] * h["weight_decay"])
        torch._foreach_sub_(weights, torch._foreach_div(gradients, p), alpha=h["lr"])

    def _second_moment(self, w: Tensor, grad: Tensor, state: State, h: Values) -> Tensor:
        """β₂ v + (1 − β₂) ĝ², of w's shape or a scalar; ĝ² at the first step."""
        whole = h["norm"] == "global"
        size = self.gradient_norm if whole else torch.linalg.vector_norm(grad)
        g: Tensor = grad if h["moment"] == "diagonal" else size
        if h["preconditioning"] == "scale-invariant":
            g = g * (self.rho if whole else torch.linalg.vector_norm(w))
        if "v" not in state:
            return g.square()
        v: Tensor = h["beta2"] * state["v"] + (1 - h["beta2"]) * g.square()
        return v

    def geometry(self) -> Geometry:
        """P = √v + ε with the v of the next step: a multiple of the identity, or diagonal."""
        lr, eps = self.values["lr"], self.values["eps"]
        decay = Decay(lr * self.values["weight_decay"])
        p = self.next_step_entry(self._second_moment).sqrt() + eps
        one_number = self.values["moment"] == "scalar" and self.values["norm"] == "global"
        metric: Metric = ScalarMetric(self.dim, float(p[0])) if one_number else DiagonalMetric(p)
        return Geometry(metric, momentum_threshold(lr, shrink=decay.shrink), decay)

    def rescaling(self) -> tuple[float, float] | None:
        """As for gradient descent if ĝ = ρ g; (w, η, λ) → (cw, cη, λ/c) if ĝ = g and ε = 0."""
        if self.values["preconditioning"] == "scale-invariant":
            return 2.0, -2.0
        return (1.0, -1.0) if self.values["eps"] == 0 else None
