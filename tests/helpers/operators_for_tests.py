"""Known matrices, operators that count, and a counter of the numbers that are read from a device."""

from collections.abc import Container, Iterable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from optim_family.operators import SymmetricOperator

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
