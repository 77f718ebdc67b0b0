"""Losses with closed forms for their minimisers and for the sharpness there.

All but `Parabolas` are scale-invariant, as a network with normalisation is, and reach 0 on a manifold of
minimisers along which the sharpness varies.

    Regression   f(x) = σ_y ⟨x − μ, w⟩ / √(wᵀΣw) + μ_y,  L = ½ mean (f − y)²
    Valley       L = ½ a(θ) c(θ)²,  θ = w/‖w‖ on S²,  c = z − b x y,  a = exp(m ⟨θ, e⟩)
    Completion   P = UVᵀ on the observed entries,  f = σ (P − mean P) / std P + μ,  L = ½ mean (f − M)²
    Parabolas    L = ½ (1 + u²) x²,  not scale-invariant

Source: K. Lyu, Z. Li, S. Arora, as in `flow`, for linear regression and matrix completion with BN; sizes and
data here are ours.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor


class Toy(ABC):
    """A loss on ℝᵈ with minimum 0, in float64."""

    @abstractmethod
    def loss(self, w: Tensor) -> Tensor:
        """L(w), [d] → scalar."""

    @abstractmethod
    def start(self) -> Tensor:
        """A minimiser far from the flattest one, [d]; of norm 1 where the loss is scale-invariant."""

    @abstractmethod
    def sharpness(self, minimiser: Tensor) -> float:
        """λ₁ of the Hessian at a minimiser [d], in closed form; at norm 1 where L is scale-invariant."""


@final
@dataclass(frozen=True)
class Regression(Toy):
    """Linear regression with BN: fewer examples than weights, and an output normalised over the examples.

    Interpolators w̃ = w₀ + u, with w₀ the one of least norm and u in the kernel of the data, are as sharp
    as ‖w̃‖² is large: S = S_min (1 + tan² φ), where tan φ = ‖u‖ / ‖w₀‖.

    Attributes:
        x: examples with mean 0, [n, d].
        y: targets with mean 0, [n].
        kernel: a unit vector orthogonal to every example, [d].
        tan_angle: tan φ₀ of the start.
    """

    x: Tensor
    y: Tensor
    kernel: Tensor
    tan_angle: float

    @classmethod
    def make(cls, n: int = 6, d: int = 12, *, tan_angle: float = 2.57, seed: int = 0) -> "Regression":
        """Gaussian examples and targets; n < d."""
        draw = gaussian(seed)
        x, y, vector = draw(n, d), draw(n), draw(d)
        x, y = x - x.mean(0), y - y.mean()
        return cls(x, y, unit(vector - torch.linalg.pinv(x) @ (x @ vector)), tan_angle)

    def loss(self, w: Tensor) -> Tensor:
        """½ mean (f − y)²; x and y are centred, so that μ = 0 and μ_y = 0."""
        return _normalised_loss(self.x @ w, self.y)

    def minimiser(self, tan_angle: float) -> Tensor:
        """The interpolator at angle φ to the one of least norm, [d], of norm 1."""
        least = torch.linalg.pinv(self.x) @ self.y
        return unit(least + tan_angle * torch.linalg.vector_norm(least) * self.kernel)

    def start(self) -> Tensor:
        """The interpolator at angle φ₀."""
        return self.minimiser(self.tan_angle)

    def sharpness(self, minimiser: Tensor) -> float:
        """‖w̃‖² λ₁(Σ − Σw̃w̃ᵀΣ / (w̃ᵀΣw̃)) with w̃ = σ_y w / √(wᵀΣw)."""
        sigma = self.x.T @ self.x / len(self.x)  #                                 [d, d]
        s = sigma @ minimiser
        power = minimiser @ s
        rest = sigma - torch.outer(s, s) / power
        squared_norm = self.y.square().mean() * (minimiser @ minimiser) / power
        return float(squared_norm * torch.linalg.eigvalsh(rest)[-1])

    def sharpness_at(self, tau: Tensor) -> Tensor:
        """S along the flow of gradient descent from the start: tan φ(τ) = tan φ₀ e^{−τ}, any shape."""
        return self.sharpness(self.minimiser(0.0)) * (1 + self.tan_angle**2 * torch.exp(-2 * tau))


@final
@dataclass(frozen=True)
class Valley(Toy):
    """A winding valley on the sphere S², steep at one end and flat at the other.

    Attributes:
        bend: b, how far the valley leaves the equator.
        steepness: m; the ends differ in sharpness by about e^{2m}.
        sharp_end: longitude of e, the sharp end, in radians.
        start_angle: longitude of the start, from the sharp end, in radians.
    """

    bend: float = 0.8
    steepness: float = 1.5
    sharp_end: float = 0.0
    start_angle: float = 0.45

    def loss(self, w: Tensor) -> Tensor:
        """½ a c² at w / ‖w‖; maps [..., 3] → [...], so that the whole sphere can be drawn at once."""
        x, y, z = unit(w).unbind(-1)
        squared: Tensor = (z - self.bend * x * y).square()
        return 0.5 * self._scale(x, y) * squared

    def minimiser(self, longitude: Tensor | float) -> Tensor:
        """The point of the valley at a longitude in radians, [...] → [..., 3], of norm 1."""
        angle = torch.as_tensor(longitude, dtype=torch.float64)
        x, y = torch.cos(angle), torch.sin(angle)
        s = self.bend * x * y
        z = 2 * s / (1 + torch.sqrt(1 + 4 * s.square()))  # z = s (1 − z²)
        r = torch.sqrt(1 - z.square())
        return torch.stack([r * x, r * y, z], dim=-1)

    def start(self) -> Tensor:
        """A point near the sharp end."""
        return self.minimiser(self.sharp_end + self.start_angle)

    def sharpness(self, minimiser: Tensor) -> float:
        """a (1 + b² (1 − z²) − z²), the squared slope of c along the sphere times a."""
        return float(self.sharpnesses(minimiser))

    def sharpnesses(self, minimisers: Tensor) -> Tensor:
        """`sharpness` of many points, [..., 3] → [...]."""
        x, y, z = minimisers.unbind(-1)
        return self._scale(x, y) * (1 + self.bend**2 * (1 - z.square()) - z.square())

    def _scale(self, x: Tensor, y: Tensor) -> Tensor:
        """The factor a = exp(m ⟨θ, e⟩)."""
        toward = math.cos(self.sharp_end) * x + math.sin(self.sharp_end) * y
        return torch.exp(self.steepness * toward)


@final
@dataclass(frozen=True)
class Completion(Toy):
    """Matrix completion with BN: w = (U, V), and the observed entries of UVᵀ normalised to those of M.

    Attributes:
        matrix: M, [m, k].
        observed: the observed entries, booleans [m, k]; at most `rank` in a column.
        left: U of the start, [m, r]; its V is the fit of least norm.
    """

    matrix: Tensor
    observed: Tensor
    left: Tensor

    @classmethod
    def make(cls, size: int = 5, rank: int = 2, *, seed: int = 0) -> "Completion":
        """A size × size matrix of rank 1, with `rank` observed entries in each row and each column."""
        draw = gaussian(seed)
        (a, b), left = draw(2, size), draw(size, rank)
        offset = (torch.arange(size)[None, :] - torch.arange(size)[:, None]) % size
        return cls(torch.outer(a, b), offset < rank, left)

    def loss(self, w: Tensor) -> Tensor:
        """½ mean (f − M)² over the observed entries."""
        return _normalised_loss(self._centred(self.product(w)), self._centred(self.matrix))

    def product(self, w: Tensor) -> Tensor:
        """UVᵀ, [(m + k) r] → [m, k]."""
        u, v = self._factors(w)
        return u @ v.T

    def start(self) -> Tensor:
        """U = `left`, and the V of least norm that fits every column."""
        columns = zip(self.matrix.T, self.observed.T, strict=True)
        right = torch.stack([torch.linalg.pinv(self.left[o]) @ column[o] for column, o in columns])
        return unit(torch.cat([self.left, right]).flatten())

    def sharpness(self, minimiser: Tensor) -> float:
        """λ₁ of (σ / ‖P̃‖)² Q K Q: P̃ the centred entries, K their tangent kernel, Q ⊥ 1 and P̃."""
        u, v = self._factors(minimiser)
        rows, columns = self.observed.nonzero(as_tuple=True)
        same_row, same_column = rows[:, None] == rows, columns[:, None] == columns
        kernel = same_row * (v @ v.T)[columns][:, columns] + same_column * (u @ u.T)[rows][:, rows]
        entries, target = self._centred(u @ v.T), self._centred(self.matrix)
        identity = torch.eye(len(entries), dtype=torch.float64)
        projector = identity - torch.outer(unit(entries), unit(entries)) - 1 / len(entries)
        scale = target.square().mean() / entries.square().sum()
        return float(scale * torch.linalg.eigvalsh(projector @ kernel @ projector)[-1])

    def _centred(self, matrix: Tensor) -> Tensor:
        """The observed entries about their mean, [n]."""
        entries = matrix[self.observed]
        return entries - entries.mean()

    def _factors(self, w: Tensor) -> tuple[Tensor, Tensor]:
        m, r = self.left.shape
        rows = w.view(-1, r)
        return rows[:m], rows[m:]


@final
@dataclass(frozen=True)
class Parabolas(Toy):
    """L = ½ (1 + u²) x² at w = (x, u): minimisers x = 0, of sharpness 1 + u²; `u` is that of the start."""

    u: float = 1.5

    def loss(self, w: Tensor) -> Tensor:
        """½ (1 + u²) x²."""
        return 0.5 * (1 + w[1].square()) * w[0].square()

    def start(self) -> Tensor:
        """(0, u)."""
        return torch.tensor([0.0, self.u], dtype=torch.float64)

    def sharpness(self, minimiser: Tensor) -> float:
        """1 + u²."""
        return 1 + float(minimiser[1]) ** 2


def gaussian(seed: int) -> Callable[..., Tensor]:
    """A function from a shape to Gaussian numbers, float64; each call continues the same random sequence."""
    return partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(w: Tensor) -> Tensor:
    """w / ‖w‖ along the last dimension: [..., d] → [..., d]."""
    direction: Tensor = w / torch.linalg.vector_norm(w, dim=-1, keepdim=True)
    return direction


def _normalised_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """½ mean (f − y)² where f are the outputs scaled to the variance of the targets; both have mean 0."""
    normalised = outputs * torch.sqrt(targets.square().mean() / outputs.square().mean())
    return 0.5 * (normalised - targets).square().mean()
