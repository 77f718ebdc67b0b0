"""Norms of steps on ℝᵈ, for optimizers whose step no quadratic form describes.

Steepest descent in a norm N moves against the step of unit length that gains most:

    N*(g) = max over N(s) ≤ 1 of ⟨g, s⟩          the dual norm
    w ← w − η N*(g) s,    or normalised    w ← w − η s          s a maximiser

Its generalised sharpness is S_N = max over N(d) = 1 of dᵀHd. The first rule trains at S_N = 2/η, the
normalised one at S_N / N*(g) = 2/η. An optimizer declares a norm in `Geometry.norm`.

Source: R. Islamov, M. Crawshaw, J. Cohen, R. Gower, arXiv:2603.05002 (2026).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


class Norm(ABC):
    """A norm N of steps on ℝᵈ, its dual norm and its maximiser.

    Attributes:
        dim: d.
    """

    dim: int

    @abstractmethod
    def value(self, step: Tensor) -> float:
        """N(d) of a step [d]."""

    @abstractmethod
    def dual(self, gradient: Tensor) -> float:
        """N*(g) of a gradient [d]: the largest ⟨g, s⟩ over N(s) ≤ 1."""

    @abstractmethod
    def maximizer(self, gradient: Tensor) -> Tensor:
        """A step s [d] with N(s) ≤ 1 and ⟨g, s⟩ = N*(g)."""

    def radius(self) -> float:
        """The largest ‖s‖₂ over N(s) ≤ 1, for the bound S_N ≤ λ₁ radius²; infinite where it is not known."""
        return math.inf


@final
class MaxNorm(Norm):
    """N(d) = max |dᵢ|, N*(g) = Σ |gᵢ|, s = sign g: sign descent."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def value(self, step: Tensor) -> float:
        """The largest |dᵢ|."""
        return float(step.abs().max())

    def dual(self, gradient: Tensor) -> float:
        """Σ |gᵢ|."""
        return float(gradient.abs().sum(dtype=torch.float64))

    def maximizer(self, gradient: Tensor) -> Tensor:
        """The signs of g."""
        return gradient.sign()

    def radius(self) -> float:
        """√d."""
        return math.sqrt(self.dim)


@final
class SpectralNorm(Norm):
    """N(d) = max over matrices of ‖D_m‖ / r_m, N*(g) = Σ r_m ‖G_m‖_nuclear, s = r_m U Vᵀ of G_m = U Σ Vᵀ.

    Args:
        shapes: of the tensors that w consists of, in order; a tensor is a matrix of its first dimension by
            all others.
        radii: r_m, the size of a step of each matrix in units of the learning rate.

    Raises:
        ValueError: a tensor has fewer than two dimensions, or a radius is not above zero.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], radii: Sequence[float]) -> None:
        if small := [tuple(shape) for shape in shapes if len(shape) < 2]:
            raise ValueError(f"a spectral norm is one of matrices; got a tensor of shape {small[0]}.")
        if not all(0 < radius < math.inf for radius in radii):
            raise ValueError(f"the radii of a spectral norm must be positive and finite; got {list(radii)}.")
        self.shapes = [(shape[0], math.prod(shape[1:])) for shape in shapes]
        self.radii = list(radii)
        self.dim = sum(rows * columns for rows, columns in self.shapes)

    def value(self, step: Tensor) -> float:
        """The largest singular value over its radius."""
        lengths = zip(self._matrices(step), self.radii, strict=True)
        return max(float(torch.linalg.matrix_norm(m, 2)) / radius for m, radius in lengths)

    def dual(self, gradient: Tensor) -> float:
        """Σ r_m times the sum of the singular values of G_m."""
        lengths = zip(self._matrices(gradient), self.radii, strict=True)
        return sum(float(torch.linalg.matrix_norm(m, "nuc")) * radius for m, radius in lengths)

    def maximizer(self, gradient: Tensor) -> Tensor:
        """r_m U Vᵀ of each matrix."""
        parts = zip(self._matrices(gradient), self.radii, strict=True)
        return torch.cat([(radius * polar_factor(m)).reshape(-1) for m, radius in parts])

    def radius(self) -> float:
        """The root of Σ r_m² times the smaller side of each matrix."""
        return math.sqrt(sum(r * r * min(shape) for r, shape in zip(self.radii, self.shapes, strict=True)))

    def _matrices(self, vector: Tensor) -> list[Tensor]:
        parts = torch.split(vector, [rows * columns for rows, columns in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def polar_factor(matrix: Tensor) -> Tensor:
    """U Vᵀ of a matrix U Σ Vᵀ [m, n]."""
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return torch.matmul(u, vh)


@final
@dataclass(frozen=True)
class Block:
    """Some of the weights, with a norm of their own.

    Attributes:
        indices: of the weights in w, [d_b].
        norm: N_b on ℝ^{d_b}.
        weight: c_b, above zero.
    """

    indices: Tensor
    norm: Norm
    weight: float = 1.0


@final
class BlockNorm(Norm):
    """N(d)² = Σ c_b² N_b(d_b)², over blocks that share the weights among them.

    Steepest descent in it is steepest descent in each block, with the rate η / c_b². A block that is
    normalised has c_b² = N_b*(g_b).

    Raises:
        ValueError: the blocks are not a partition of the weights, or the weight of a block is not above zero.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        indices = torch.cat([block.indices for block in blocks])
        self.dim = indices.numel()
        if not torch.equal(indices.sort().values, torch.arange(self.dim, device=indices.device)):
            raise ValueError("the blocks of a norm must hold every weight once.")
        if not all(0 < block.weight < math.inf for block in blocks):
            raise ValueError(
                f"the weights of blocks must be positive and finite; got {[b.weight for b in blocks]}."
            )
        self.blocks = list(blocks)

    def value(self, step: Tensor) -> float:
        """√Σ c_b² N_b²."""
        return math.hypot(*(b.weight * b.norm.value(step[b.indices]) for b in self.blocks))

    def dual(self, gradient: Tensor) -> float:
        """√Σ (N_b*/c_b)²."""
        return math.hypot(*(b.norm.dual(gradient[b.indices]) / b.weight for b in self.blocks))

    def maximizer(self, gradient: Tensor) -> Tensor:
        """s_b N_b* / (c_b² N*) in each block."""
        step, whole = torch.zeros_like(gradient), self.dual(gradient) or 1.0
        for b in self.blocks:
            part = gradient[b.indices]
            step[b.indices] = b.norm.maximizer(part) * (b.norm.dual(part) / (b.weight**2 * whole))
        return step

    def radius(self) -> float:
        """The largest radius_b / c_b."""
        return max(b.norm.radius() / b.weight for b in self.blocks)
