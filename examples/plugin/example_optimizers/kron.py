"""Kron: a preconditioner that is a Kronecker product, as in Shampoo.

    Ĝ = ρ G                        gradient at w/‖w‖ of one tensor, as a matrix [m, n]
    L ← β₂ L + (1 − β₂) Ĝ Ĝᵀ       [m, m]; both start at their first values
    R ← β₂ R + (1 − β₂) Ĝᵀ Ĝ       [n, n]
    P = (L + ε)^{1/4} ⊗ (R + ε)^{1/4}
    W ← (1 − ηλ) W − η (L + ε)^{-1/4} G (R + ε)^{-1/4}

P is not diagonal: it acts along the principal axes of the rows and of the columns of each tensor. As in the
package's RMSprop the averages are over ĝ = ρ g, so that P depends only on the direction of the weights. A
tensor with more than two axes is a matrix of its first axis by all others; a vector is a matrix with one
column.

Source: V. Gupta, T. Koren, Y. Singer, "Shampoo: preconditioned stochastic tensor optimization" (2018).
"""

from typing import Annotated, final

import torch
from pydantic import Field
from torch import Tensor

from optim_family.geometry import Decay, Geometry, Metric, momentum_threshold
from optim_family.operators import SymmetricOperator
from optim_family.optimizers.base import FamilyOptimizer, HyperParameters, State, Values
from optim_family.space import flatten


@final
class KronHyper(HyperParameters):
    """The hyper-parameters of Kron."""

    lr: Annotated[float, Field(gt=0, description="learning rate η")] = 0.02
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ, decoupled")] = 0.05
    beta2: Annotated[float, Field(ge=0, le=1, description="memory of both moments β₂")] = 0.99
    damping: Annotated[float, Field(gt=0, description="ε, added to both moments")] = 1e-4


@final
class Power:
    """Real powers of a positive definite matrix A = Q diag(λ) Qᵀ."""

    def __init__(self, matrix: Tensor, damping: float) -> None:
        values, self.axes = torch.linalg.eigh(matrix)
        self.values = values.clamp(min=0) + damping

    def __call__(self, exponent: float) -> Tensor:
        """A to this power, [m, m]."""
        return torch.mm(self.axes * self.values**exponent, self.axes.T)


@final
class Product(SymmetricOperator):
    """V ↦ A V B for each tensor, with one pair (A [m, m], B [n, n]) a tensor."""

    def __init__(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        self.pairs, self.sizes = pairs, [len(a) * len(b) for a, b in pairs]
        self.dim = sum(self.sizes)

    def apply(self, v: Tensor) -> Tensor:
        """The product, [d] → [d]."""
        parts = zip(self.pairs, torch.split(v, self.sizes), strict=True)
        return flatten(a @ x.view(len(a), len(b)) @ b for (a, b), x in parts)


@final
class KroneckerMetric(Metric):
    """P = (L + ε)^{1/4} ⊗ (R + ε)^{1/4} for each tensor."""

    def __init__(self, factors: list[tuple[Power, Power]]) -> None:
        self.factors = factors
        self.dim = sum(len(left.values) * len(right.values) for left, right in factors)

    def power(self, exponent: float) -> SymmetricOperator:
        """P^exponent: both factors to a quarter of the exponent."""
        return Product([(left(exponent / 4), right(exponent / 4)) for left, right in self.factors])


@final
class Kron(FamilyOptimizer):
    """P = (L + ε)^{1/4} ⊗ (R + ε)^{1/4}, threshold 2 (1 − ηλ) / η."""

    Hyper = KronHyper
    freeze = {"beta2": 1.0}

    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """The four lines above."""
        state["L"], state["R"] = self._moments(grad, state, h)
        left, right = Power(state["L"], h["damping"]), Power(state["R"], h["damping"])
        step = left(-0.25) @ _matrix(grad) @ right(-0.25)
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(step.view_as(w), alpha=h["lr"])

    def _moments(self, grad: Tensor, state: State, h: Values) -> tuple[Tensor, Tensor]:
        """L and R of the next step."""
        g = _matrix(self.rho * grad)
        left, right = g @ g.T, g.T @ g
        if "L" in state:
            left, right = left.lerp(state["L"], h["beta2"]), right.lerp(state["R"], h["beta2"])
        return left, right

    def geometry(self) -> Geometry:
        """P of the next step."""
        factors: list[tuple[Power, Power]] = []

        def note(w: Tensor, grad: Tensor, state: State, h: Values) -> Tensor:
            left, right = self._moments(grad, state, h)
            factors.append((Power(left, h["damping"]), Power(right, h["damping"])))
            return grad

        self.next_step_entry(note)
        decay = Decay(self.values["lr"] * self.values["weight_decay"])
        return Geometry(
            KroneckerMetric(factors), momentum_threshold(self.values["lr"], shrink=decay.shrink), decay
        )

    def rescaling(self) -> tuple[float, float]:
        """(w, η, λ) → (cw, c²η, λ/c²), as for gradient descent."""
        return 2.0, -2.0


def _matrix(tensor: Tensor) -> Tensor:
    return tensor.reshape(len(tensor), -1)
