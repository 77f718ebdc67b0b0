"""AdamW: averages of the gradient and of its square, bias-corrected, with decoupled decay.

    m ← β₁ m + (1 − β₁) g          M ← β₁ M + (1 − β₁)     the sum of the weights in m
    v ← β₂ v + (1 − β₂) g²         V ← β₂ V + (1 − β₂)
    P = M (√(v/V) + ε)
    w ← (1 − ηλ) w − η P⁻¹ m

With constant β the sums M and V are the usual 1 − β₁ᵗ and 1 − β₂ᵗ. They are part of the state, so that they
stay correct when a schedule changes β. The threshold is that of averaged momentum with frozen P, 38/η at
β₁ = 0.9 without decay. Because P changes, Adam oscillates at a sharpness somewhat below it.

Source: D. Kingma, J. Ba, "Adam" (2015); I. Loshchilov, F. Hutter, "Decoupled weight decay
regularization" (2019); threshold: J. Cohen et al., "Adaptive gradient methods at the edge of stability"
(2022), which puts the bias correction into P as here.
"""

from typing import Annotated, Any, final

import torch
from pydantic import Field
from torch import Tensor

from optim_family.geometry import Decay, DiagonalMetric, Geometry, momentum_threshold
from optim_family.optimizers.base import FamilyOptimizer, HyperParameters, State, Values, averages


@final
class AdamWHyper(HyperParameters):
    """The hyper-parameters of AdamW."""

    lr: Annotated[float, Field(gt=0, description="learning rate η")] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ, decoupled")] = 1e-2
    beta1: Annotated[float, Field(ge=0, lt=1, description="memory of the gradient β₁")] = 0.9
    beta2: Annotated[float, Field(ge=0, le=1, description="memory of the second moment β₂")] = 0.999
    eps: Annotated[float, Field(ge=0, description="ε, added to the root")] = 1e-8


@final
class AdamW(FamilyOptimizer):
    """AdamW; P = (1 − β₁ᵗ)(√v̂ + ε), threshold 2 (1 − ηλ + β₁) / ((1 − β₁) η)."""

    Hyper = AdamWHyper
    freeze = {"beta2": 1.0}
    needs_norms = False

    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """The equations above."""
        p = self._metric(w, grad, state, h)
        m = state["m"] = _average(state.get("m"), grad, h["beta1"])
        state["v"] = _average(state.get("v"), grad.square(), h["beta2"])
        state["M"], state["V"] = _collected(state, h)
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(m / p, alpha=h["lr"])

    def update_all(self, weights: list[Tensor], gradients: list[Any], states: list[State], h: Values) -> None:
        """The same of all tensors at once."""
        first = {beta: (1 - h[beta]) or 1.0 for beta in ("beta1", "beta2")}
        squares = torch._foreach_mul(gradients, gradients)
        v = averages([s.get("v") for s in states], squares, h["beta2"], first=first["beta2"])
        m = averages([s.get("m") for s in states], gradients, h["beta1"], first=first["beta1"])
        collected = [_collected(state, h) for state in states]
        p = torch._foreach_sqrt(torch._foreach_div(v, [big_v for _, big_v in collected]))
        p = torch._foreach_mul(torch._foreach_add(p, h["eps"]), [big_m for big_m, _ in collected])
        for state, m_entry, v_entry, (big_m, big_v) in zip(states, m, v, collected, strict=True):
            state.update(m=m_entry, v=v_entry, M=big_m, V=big_v)
        torch._foreach_mul_(weights, 1 - h["lr"] * h["weight_decay"])
        torch._foreach_sub_(weights, torch._foreach_div(m, p), alpha=h["lr"])

    def _metric(self, w: Tensor, grad: Tensor, state: State, h: Values) -> Tensor:
        """P = M (√(v/V) + ε) of the next step, of w's shape."""
        v = _average(state.get("v"), grad.square(), h["beta2"])
        collected_m, collected_v = _collected(state, h)
        return torch.mul((v / collected_v).sqrt() + h["eps"], collected_m)

    def geometry(self) -> Geometry:
        """P = (1 − β₁ᵗ)(√v̂ + ε), diagonal, of the next step."""
        lr, beta1 = self.values["lr"], self.values["beta1"]
        decay = Decay(lr * self.values["weight_decay"])
        threshold = momentum_threshold(lr * (1 - beta1), beta=beta1, shrink=decay.shrink)
        metric = DiagonalMetric(self.next_step_entry(self._metric))
        return Geometry(metric, threshold, decay, momentum=beta1)

    def rescaling(self) -> tuple[float, float] | None:
        """(w, η, λ) → (cw, cη, λ/c) if ε = 0."""
        return (1.0, -1.0) if self.values["eps"] == 0 else None


def _average(old: Tensor | None, new: Tensor, beta: float) -> Tensor:
    """β old + (1 − β) new, starting at zero; β = 1 from the start keeps the first value."""
    return ((1 - beta) or 1.0) * new if old is None else beta * old + (1 - beta) * new


def _collected(state: State, h: Values) -> tuple[float, float]:
    """(M, V) of the next step: the same averages of ones."""
    return _weight(state.get("M"), h["beta1"]), _weight(state.get("V"), h["beta2"])


def _weight(old: float | None, beta: float) -> float:
    return (1 - beta) or 1.0 if old is None else beta * old + 1 - beta
