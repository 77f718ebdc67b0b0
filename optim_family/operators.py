"""Symmetric maps on ℝᵈ, known through their products with vectors, and how they combine.

Every sharpness of this project is λ₁ of A₁ ⋯ Aₙ H Aₙ ⋯ A₁ for some of these as factors A.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from optim_family.space import inner, norm


def require_finite_products(numbers: ArrayLike) -> None:
    """Raise FloatingPointError if numbers that were computed from products are not finite."""
    if not np.isfinite(numbers).all():
        raise FloatingPointError("a product with the operator is not finite.")


class SymmetricOperator(ABC):
    """A symmetric map on ℝᵈ, known only through its products with vectors.

    Attributes:
        dim: d.
    """

    dim: int

    @property
    def machine_epsilon(self) -> float:
        """That of the coarsest format inside a product; 0.0 if no format is coarser than that of v."""
        return 0.0

    @property
    def device(self) -> torch.device:
        """Where the vectors lie; the CPU if the operator holds no tensor."""
        return torch.device("cpu")

    @abstractmethod
    def apply(self, v: Tensor) -> Tensor:
        """The product with one vector, [d] → [d]."""

    def gradient(self) -> Tensor | None:
        """Of the function whose second derivative this is, [d], if it is known to be one."""
        return None

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each term in the sum that this operator is, [N], their sum 1; one term if unknown."""
        return (1.0,)

    def weighted_terms(self, weights: Mapping[int, float]) -> "SymmetricOperator":
        """Σ w_c A_c over some of the terms, from their indices and weights."""
        return CongruenceOperator((Scalar(self.dim, weights[0] ** 0.5),), self)

    def apply_by_terms(self, v: Tensor, see: Callable[[int, Tensor], None]) -> Tensor:
        """The product with one vector; calls `see` with the index and the product of each term, [d]."""
        product = self @ v
        see(0, product)
        return product

    def all_reduce_terms(self, numbers: Tensor) -> Tensor:
        """The sum over the processes that share the terms."""
        return numbers

    def __matmul__(self, v: Tensor) -> Tensor:
        """The product with one vector, [d] → [d].

        Raises:
            ValueError: v is not one vector of this operator's dimension.
        """
        if v.shape != (self.dim,):
            raise ValueError(
                f"{type(self).__name__} acts on vectors of shape [{self.dim}]; got {list(v.shape)}."
            )
        return self.apply(v)

    def dense(self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
        """The matrix, [d, d], one product a column: for tests and small examples.

        Args:
            dtype: of the vectors.
            device: of the vectors; that of the operator if None.
        """
        basis = torch.eye(self.dim, dtype=dtype, device=device or self.device)
        return torch.stack([self @ e for e in basis], dim=1)


@final
class Scalar(SymmetricOperator):
    """c · I."""

    def __init__(self, dim: int, scale: float = 1.0) -> None:
        self.dim, self.scale = dim, scale

    def apply(self, v: Tensor) -> Tensor:
        """The product c v."""
        return v if self.scale == 1.0 else self.scale * v


@final
class Diagonal(SymmetricOperator):
    """diag(a), from its diagonal a [d]."""

    def __init__(self, diagonal: Tensor) -> None:
        self.dim, self.diagonal = diagonal.numel(), diagonal

    @property
    def device(self) -> torch.device:
        """That of the diagonal."""
        return self.diagonal.device

    def apply(self, v: Tensor) -> Tensor:
        """The product a ⊙ v."""
        return torch.mul(self.diagonal, v)


@final
class Matrix(SymmetricOperator):
    """A dense symmetric matrix [d, d]: small problems, and the reference in tests."""

    def __init__(self, matrix: Tensor) -> None:
        self.dim, self.matrix = len(matrix), matrix

    @property
    def device(self) -> torch.device:
        """That of the matrix."""
        return self.matrix.device

    def apply(self, v: Tensor) -> Tensor:
        """The product A v."""
        return torch.mv(self.matrix, v)


@final
class TangentProjection(SymmetricOperator):
    """Π = I − θθᵀ: onto the tangent space of the sphere at θ = w/‖w‖, from the weights w [d].

    Args:
        weights: w [d].
        length: ‖w‖, if it has been read from the device already.

    Raises:
        ValueError: the weights are all zero, or not finite.
    """

    def __init__(self, weights: Tensor, length: float | None = None) -> None:
        length = float(norm(weights)) if length is None else length
        if not 0 < length < float("inf"):
            what = "zero: there is no sphere through them" if not length else "not finite"
            raise ValueError(f"the weights are {what}.")
        self.dim, self.direction = weights.numel(), weights / length

    @property
    def device(self) -> torch.device:
        """That of the weights."""
        return self.direction.device

    def apply(self, v: Tensor) -> Tensor:
        """The product v − ⟨θ, v⟩ θ."""
        return torch.sub(v, inner(self.direction[None], v)[0] * self.direction)


@final
class CongruenceOperator(SymmetricOperator):
    """A₁ ⋯ Aₙ H Aₙ ⋯ A₁, from the factors (A₁, …, Aₙ) and the middle H."""

    def __init__(self, factors: tuple[SymmetricOperator, ...], middle: SymmetricOperator) -> None:
        self.factors, self.middle, self.dim = factors, middle, middle.dim
        for factor in factors:
            if factor.dim != middle.dim:
                raise ValueError(
                    f"the factor {type(factor).__name__} has dimension {factor.dim}, the operator between "
                    f"the factors has {middle.dim}: both must describe the same weights."
                )

    @property
    def machine_epsilon(self) -> float:
        """That of the middle."""
        return self.middle.machine_epsilon

    @property
    def device(self) -> torch.device:
        """That of the middle."""
        return self.middle.device

    def apply(self, v: Tensor) -> Tensor:
        """The product A₁ ⋯ Aₙ H Aₙ ⋯ A₁ v."""
        for factor in self.factors:  # the rightmost factor is A₁
            v = factor @ v
        return self._from_the_middle(self.middle @ v)

    def gradient(self) -> Tensor | None:
        """A₁ ⋯ Aₙ g, from the gradient g of the middle: that in the coordinates of this operator."""
        gradient = self.middle.gradient()
        return None if gradient is None else self._from_the_middle(gradient)

    @property
    def shares(self) -> tuple[float, ...]:
        """Those of the middle."""
        return self.middle.shares

    def weighted_terms(self, weights: Mapping[int, float]) -> SymmetricOperator:
        """The same factors around those of the middle."""
        return CongruenceOperator(self.factors, self.middle.weighted_terms(weights))

    def apply_by_terms(self, v: Tensor, see: Callable[[int, Tensor], None]) -> Tensor:
        """The product; the terms that are seen have the factors too."""
        for factor in self.factors:
            v = factor @ v
        product = self.middle.apply_by_terms(v, lambda index, term: see(index, self._from_the_middle(term)))
        return self._from_the_middle(product)

    def all_reduce_terms(self, numbers: Tensor) -> Tensor:
        """As the middle."""
        return self.middle.all_reduce_terms(numbers)

    def _from_the_middle(self, v: Tensor) -> Tensor:
        for factor in reversed(self.factors):
            v = factor @ v
        return v


@final
class HookedOperator(SymmetricOperator):
    """An operator that calls `before` ahead of every product, which may count it, or stop everything."""

    def __init__(self, middle: SymmetricOperator, before: Callable[[], object]) -> None:
        self.middle, self.before, self.dim = middle, before, middle.dim

    @property
    def machine_epsilon(self) -> float:
        """That of the middle."""
        return self.middle.machine_epsilon

    @property
    def device(self) -> torch.device:
        """That of the middle."""
        return self.middle.device

    def apply(self, v: Tensor) -> Tensor:
        """The product of the middle."""
        self.before()
        return self.middle @ v

    def gradient(self) -> Tensor | None:
        """That of the middle."""
        return self.middle.gradient()

    @property
    def shares(self) -> tuple[float, ...]:
        """Those of the middle."""
        return self.middle.shares

    def weighted_terms(self, weights: Mapping[int, float]) -> SymmetricOperator:
        """The same hook before every product of some terms."""
        return HookedOperator(self.middle.weighted_terms(weights), self.before)

    def apply_by_terms(self, v: Tensor, see: Callable[[int, Tensor], None]) -> Tensor:
        """The product of the middle."""
        self.before()
        return self.middle.apply_by_terms(v, see)

    def all_reduce_terms(self, numbers: Tensor) -> Tensor:
        """As the middle."""
        return self.middle.all_reduce_terms(numbers)


# The former names.
Sandwich = CongruenceOperator
Watched = HookedOperator
