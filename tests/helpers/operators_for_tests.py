"""Known matrices, operators that count, and a counter of the numbers that are read from a device."""

from collections.abc import Callable, Container, Iterable, Mapping

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from optim_family.operators import Matrix, SymmetricOperator

LIKE = torch.empty(0, dtype=torch.float64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal random numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def top_eigenvalue(matrix: Tensor) -> float:
    """λ₁ of a dense symmetric matrix."""
    return float(torch.linalg.eigvalsh(matrix)[-1])


def rotated(spectrum: Iterable[float], seed: int = 0) -> Tensor:
    """A dense symmetric matrix with this spectrum, in a random basis."""
    values, generator = torch.tensor(list(spectrum), dtype=torch.float64), torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    return (q * values) @ q.T


class Counting(SymmetricOperator):
    """Counts its products; those with a number in `bad_at` have the entry `bad`."""

    def __init__(self, inner: SymmetricOperator, bad: float = 0.0, bad_at: Container[int] = ()) -> None:
        self.inner, self.dim, self.count, self.bad, self.bad_at = inner, inner.dim, 0, bad, bad_at

    def apply(self, v: Tensor) -> Tensor:
        self.count += 1
        product = (self.inner @ v).clone()
        if self.count in self.bad_at:
            product[0] = self.bad
        return product


class SumOfMatrices(SymmetricOperator):
    """The mean of dense matrices, as a sum of terms with equal shares; counts what is asked of it."""

    def __init__(self, terms: Iterable[Tensor]) -> None:
        stacked = torch.stack([*terms])
        self.terms = stacked / len(stacked)
        self.dim, self.full, self.parts = self.terms.shape[1], 0, list[Mapping[int, float]]()

    @property
    def shares(self) -> tuple[float, ...]:
        return (1 / len(self.terms),) * len(self.terms)

    def apply(self, v: Tensor) -> Tensor:
        self.full += 1
        return torch.stack([term @ v for term in self.terms]).sum(0)

    def weighted_terms(self, weights: Mapping[int, float]) -> SymmetricOperator:
        self.parts.append(weights)
        return Matrix(sum(weight * self.terms[index] for index, weight in weights.items()))

    def apply_by_terms(self, v: Tensor, see: Callable[[int, Tensor], None]) -> Tensor:
        self.full += 1
        products = self.terms @ v
        for index, product in enumerate(products):
            see(index, product)
        return products.sum(0)

    def whole(self) -> Tensor:
        """The matrix of the sum."""
        return self.terms.sum(0)


class Reads(TorchFunctionMode):
    """Counts what makes Python wait for a device: numbers and copies that are read from it."""

    WAITING = {
        getattr(Tensor, name)
        for name in ("__bool__", "__float__", "__int__", "item", "tolist", "cpu", "numpy", "nonzero")
    }

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func in self.WAITING
        return func(*args, **(kwargs or {}))


class Sloping(SymmetricOperator):
    """An operator that knows the gradient of its function."""

    def __init__(self, middle: SymmetricOperator, gradient: Tensor) -> None:
        self.middle, self.slope, self.dim = middle, gradient, middle.dim

    def apply(self, v: Tensor) -> Tensor:
        """The product of the middle."""
        return self.middle @ v

    def gradient(self) -> Tensor:
        return self.slope
