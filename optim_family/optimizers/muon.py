"""Muon: matrices move by their orthogonalised momentum, all other tensors by another optimizer.

    m ← β m + (1 − β) g            u = m, or u = (1 − β) g + β m with Nesterov's
    w ← (1 − ηλ) w − η r O(u)      r = √max(1, rows/columns)

O(u) stands for U Vᵀ of u = U Σ Vᵀ. The author approximates it by five Newton–Schulz steps of
X ← a X + (b X Xᵀ + c (X Xᵀ)²) X, whose singular values end between about 0.7 and 1.2 instead of at 1; `svd`
computes U Vᵀ itself. A tensor of more than two dimensions is a matrix of its first dimension by all others.

Without momentum and with `svd` it is normalised steepest descent in the norm N(d) = max ‖D_m‖ / r_m of its
matrices, at S_N / N*(g) = (2 − ηλ)/η. With momentum no threshold is known. Tensors of one dimension are
trained by the inner optimizer, `muon:signgd`, by default adamw, with the learning rate η · rest_rate and the
same decay ηλ.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); threshold:
R. Islamov et al., arXiv:2603.05002 (2026), without decay.
"""

import math
from abc import ABC
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, cast, final

import torch
from pydantic import Field, create_model
from torch import Tensor

from optim_family.geometry import Decay, Geometry, UnknownMetric, normalized_threshold
from optim_family.norms import Block, BlockNorm, Norm, SpectralNorm, polar_factor
from optim_family.optimizers.base import (
    FamilyOptimizer,
    HyperParameters,
    OptimizerBase,
    State,
    Values,
    weighted_sums,
)
from optim_family.space import flatten

NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # a, b, c
INEXACT = 0.35  # of five steps: singular values of O(u) differ from 1 by at most so much
_REST = "rest_"
_COMMON = ("lr", "weight_decay")


class MuonHyper(HyperParameters):
    """The hyper-parameters of Muon, without those of the inner optimizer."""

    lr: Annotated[float, Field(gt=0, description="learning rate η, the norm of every step")] = 0.02
    weight_decay: Annotated[float, Field(ge=0, description="weight decay λ, decoupled")] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1, description="momentum β", examples=[0.0])] = 0.95
    nesterov: Annotated[bool, Field(description="Nesterov's momentum")] = True
    polar: Annotated[
        Literal["newton-schulz", "svd"], Field(description="how the momentum is orthogonalised")
    ] = "newton-schulz"
    rest_rate: Annotated[
        float, Field(gt=0, description="learning rate of tensors of one dimension, over η")
    ] = 1.0


class Muon(FamilyOptimizer, ABC):
    """Muon around an inner optimizer; N the spectral norm, threshold (2 − ηλ) / η without momentum."""

    default_inner: ClassVar[str] = "adamw"
    inner_class: ClassVar[type[FamilyOptimizer]]
    test_shapes = ((4, 3), (2, 5), (3, 2, 2))
    needs_norms = False

    @classmethod
    def around(cls, inner: type[FamilyOptimizer]) -> type[OptimizerBase]:
        """Muon that trains tensors of one dimension by `inner`; its hyper-parameters are `rest_…`."""
        fields: dict[str, Any] = {
            f"{_REST}{name}": (Annotated[field.annotation, field], field.default)
            for name, field in inner.Hyper.model_fields.items()
            if name not in _COMMON
        }

        @final
        class Around(cls):  # type: ignore[valid-type, misc]
            inner_class = inner
            Hyper = create_model("MuonHyper", __base__=MuonHyper, **fields)

        return cast(type[OptimizerBase], Around)

    def __init__(self, *arguments: Any, **values: Any) -> None:
        super().__init__(*arguments, **values)
        rest = [w for w in self.weights if w.ndim < 2]
        self.inner = self.inner_class(rest, **self._inner_values()) if rest else None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the matrices, and one of the inner optimizer."""
        loss = super().step(closure)
        if inner := self._synchronised():
            inner.step()
        return loss

    def update(self, w: Tensor, grad: Tensor, state: State, h: Values) -> None:
        """The equations above; tensors of one dimension wait for the inner optimizer."""
        if w.ndim < 2:
            return
        u, beta = grad, h["momentum"]
        if beta:
            m = state["m"] = beta * state.get("m", torch.zeros_like(w)) + (1 - beta) * grad
            u = (1 - beta) * grad + beta * m if h["nesterov"] else m
        step = POLAR[h["polar"]](u.reshape(len(u), -1)).view_as(w)
        w.mul_(1 - h["lr"] * h["weight_decay"]).sub_(step, alpha=h["lr"] * _radius(w))

    def update_all(self, weights: list[Tensor], gradients: list[Any], states: list[State], h: Values) -> None:
        """The same of all tensors at once, but for O(u), which is one matrix at a time."""
        if not (rows := [row for row in zip(weights, gradients, states, strict=True) if row[0].ndim > 1]):
            return
        matrices, u, memories = (list(column) for column in zip(*rows, strict=True))
        if beta := h["momentum"]:
            old = [memory.get("m", torch.zeros_like(w)) for w, memory in zip(matrices, memories, strict=True)]
            m = weighted_sums(old, u, beta)
            for memory, entry in zip(memories, m, strict=True):
                memory["m"] = entry
            u = weighted_sums(m, u, beta) if h["nesterov"] else m
        torch._foreach_mul_(matrices, 1 - h["lr"] * h["weight_decay"])
        for w, direction in zip(matrices, u, strict=True):
            step = POLAR[h["polar"]](direction.reshape(len(w), -1)).view_as(w)
            w.sub_(step, alpha=h["lr"] * _radius(w))

    def geometry(self) -> Geometry:
        """The norm of the matrices, joined with that of the inner optimizer if there are other tensors."""
        h, decay = self.values, Decay(self.values["lr"] * self.values["weight_decay"])
        matrices = [w for w in self.weights if w.ndim > 1]
        norm: Norm | str = "there is no matrix"
        inner = self._synchronised()
        if matrices:
            own = SpectralNorm([w.shape for w in matrices], [_radius(w) for w in matrices])
            norm = own if inner is None else self._joined(own, inner.geometry())
        if isinstance(norm, str):
            return Geometry(UnknownMetric(self.dim, norm), math.inf, decay)
        momentum = f"with momentum (β = {h['momentum']:g}) none is known" if h["momentum"] else ""
        return Geometry.in_norm(
            norm,
            math.inf if momentum else normalized_threshold(h["lr"], shrink=decay.shrink),
            decay,
            normalized=inner is None,
            no_threshold=momentum,
            inexact=INEXACT if h["polar"] == "newton-schulz" else 0.0,
        )

    def _joined(self, norm: SpectralNorm, rest: Geometry) -> Norm | str:
        """The norm of both kinds of tensors; a reason where there is none.

        The matrices are one block, normalised by the gradient of the next step.
        """
        name = self.inner_class.__name__
        if rest.step_norm is None or math.isinf(rest.threshold) or rest.momentum:
            return f"tensors of one dimension move by {name}, whose step has momentum or no norm"
        matrix = flatten(torch.full_like(w, w.ndim > 1, dtype=torch.bool) for w in self.weights)
        gradient = flatten(torch.zeros_like(w) if w.grad is None else w.grad for w in self.weights)
        duals = [norm.dual(gradient[matrix]), rest.step_norm.dual(gradient[~matrix])]
        if not all(duals):
            return "the gradient of a block is zero"
        own = duals[1] if rest.normalized else 1.0
        return BlockNorm(
            [
                Block(matrix.nonzero()[:, 0], norm, math.sqrt(duals[0])),
                Block((~matrix).nonzero()[:, 0], rest.step_norm, math.sqrt(own / self.values["rest_rate"])),
            ]
        )

    def _inner_values(self) -> dict[str, Any]:
        """The hyper-parameters of the inner optimizer; ηλ is the same for both."""
        h = self.values
        own = {key.removeprefix(_REST): h[key] for key in h if key.startswith(_REST) and key != "rest_rate"}
        common = {"lr": h["lr"] * h["rest_rate"], "weight_decay": h["weight_decay"] / h["rest_rate"]}
        return common | own

    def _synchronised(self) -> FamilyOptimizer | None:
        """The inner optimizer, with the state and the hyper-parameters of this one; None without a tensor."""
        if self.inner is not None:
            self.inner.state = self.state
            self.inner.param_groups[0].update(self._inner_values())
        return self.inner


def newton_schulz(matrix: Tensor, steps: int = 5) -> Tensor:
    """U Vᵀ of a matrix [m, n], approximately: singular values are moved towards 1."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (torch.linalg.matrix_norm(wide) + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return torch.clone(x.T if x.shape != matrix.shape else x)


def _svd(matrix: Tensor) -> Tensor:
    """U Vᵀ; zero for a zero matrix."""
    return polar_factor(matrix) if bool(matrix.any()) else torch.zeros_like(matrix)


POLAR: dict[str, Callable[[Tensor], Tensor]] = {"newton-schulz": newton_schulz, "svd": _svd}


def _radius(w: Tensor) -> float:
    """r = √max(1, rows/columns)."""
    return math.sqrt(max(1.0, len(w) / (w.numel() / len(w))))
