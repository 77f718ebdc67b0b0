"""The sharpness-reduction flow: the slow motion of gradient descent that oscillates across its minimisers.

    dζ/dτ = −2 ∇_Γ log λ₁ / (4 + q)            GD with weight decay, scale-invariant loss, τ = ηλt
    dζ/dτ = −∇_Γ log λ₁ / (4 + 2q/C)           scalar RMSprop, any smooth loss, τ = η²t

Γ is the manifold of minimisers, ∇_Γ the projection of a gradient to its tangent space, q = ‖∇_Γ log λ₁‖² and
C = (1 − β)/(βη²). The loss determines Γ: its tangent space is the kernel of the Hessian H (for a
scale-invariant loss without the radial direction, on the unit sphere), and ∇λ₁ = ∇(vᵀH(·)v) at the top
eigenvector v, which holds where λ₁ is simple. Off Γ the field is that of the projection to Γ, so that a
Runge–Kutta method keeps its order; every step is projected back to Γ.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers: sharpness
reduction", NeurIPS 2022; E. Hairer, C. Lubich, G. Wanner, "Geometric numerical integration" (2006), IV.4, for
the projection.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import RK45
from torch import Tensor

from optim_family.errors import OptimFamilyError

Loss = Callable[[Tensor], Tensor]

# Fractions of λ₁: an eigenvalue below KERNEL counts as 0; λ₁ is simple if λ₂ is further away than SIMPLE.
KERNEL, SIMPLE = 1e-6, 1e-3
# Distances from Γ, relative to a norm of 1: allowed for a minimiser, and reached by a projection.
ON_GAMMA, RETRACTED = 1e-7, 1e-11
NEWTON_STEPS = 30
STEP_ERROR = 1e-6  # of a step of the solver, relative to a norm of 1


@final
class FlowError(OptimFamilyError):
    """The flow is not defined at a point."""


@final
@dataclass(frozen=True)
class FlowPoint:
    """Sharpness and its gradient at a minimiser.

    Attributes:
        point: ζ, [d].
        sharpness: λ₁.
        top: its unit eigenvector v, up to the sign, [d].
        gradient: ∇_Γ log λ₁, [d].
        q: ‖∇_Γ log λ₁‖².
    """

    point: Tensor
    sharpness: float
    top: Tensor
    gradient: Tensor
    q: float


@final
@dataclass(frozen=True)
class FlowEquation:
    """dζ/dτ = −speed · ∇_Γ log λ₁ / (4 + weight · q); `spherical` if Γ lies on the unit sphere."""

    speed: float
    weight: float
    spherical: bool

    def velocity(self, point: FlowPoint) -> Tensor:
        """dζ/dτ, [d]."""
        return -self.speed / (4 + self.weight * point.q) * point.gradient


GRADIENT_DESCENT = FlowEquation(speed=2, weight=1, spherical=True)


def scalar_rmsprop(lr: float, beta: float) -> FlowEquation:
    """Scalar RMSprop without weight decay, which updates v before the step: C = (1 − β)/(βη²)."""
    return FlowEquation(speed=1, weight=2 * beta * lr**2 / (1 - beta), spherical=False)


@final
@dataclass(frozen=True)
class MinimizerManifold:
    """Γ near one of its points.

    Attributes:
        loss: L, [d] → scalar, three times differentiable by torch.
        spherical: Γ is restricted to the unit sphere.
        codimension: how many eigenvalues of the Hessian are not 0 on Γ.
    """

    loss: Loss
    spherical: bool
    codimension: int

    @classmethod
    def through(cls, loss: Loss, point: Tensor, *, spherical: bool = True) -> "MinimizerManifold":
        """Γ through a minimiser [d], float64.

        Raises:
            FlowError: the point is not a minimiser, or the loss has no curvature there.
        """
        _, values, _ = derivatives(loss, point)
        manifold = cls(loss, spherical, int((values > KERNEL * values[-1]).sum()) if values[-1] > 0 else 0)
        manifold.at(point)
        return manifold

    def at(self, point: Tensor) -> FlowPoint:
        """Sharpness and its gradient at a minimiser [d].

        Raises:
            FlowError: the point is not a minimiser, or λ₁ is not simple.
        """
        return self._flow_point(point, *derivatives(self.loss, point))

    def project(self, point: Tensor) -> FlowPoint:
        """Project a point [d] to Γ by Newton's method in the normal space.

        Raises:
            FlowError: Newton's method does not converge, or λ₁ is not simple there.
        """
        for _ in range(NEWTON_STEPS):
            gradient, values, vectors = derivatives(self.loss, point)
            normal, curvature = vectors[:, -self.codimension :], values[-self.codimension :]
            if not curvature[0] > 0:
                break
            step = normal @ (normal.T @ gradient / curvature)  #                   H⁺ g, [d]
            if torch.linalg.vector_norm(step) <= RETRACTED:
                return self._flow_point(point, gradient, values, vectors)
            point = point - step
            point = point / torch.linalg.vector_norm(point) if self.spherical else point
        raise FlowError(
            "Newton's method finds no minimiser near the point; take smaller steps, or end earlier."
        )

    def _flow_point(self, point: Tensor, gradient: Tensor, values: Tensor, vectors: Tensor) -> FlowPoint:
        self._check(gradient, values)
        top, kernel = vectors[:, -1], vectors[:, : -self.codimension]
        tangent = kernel @ (kernel.T @ (third_derivative_at(self.loss, point, top) / values[-1]))
        if self.spherical:  # λ₁ changes along the radius too, as 1/ρ²
            tangent = tangent - (point @ tangent) * point
        return FlowPoint(point, float(values[-1]), top, tangent, float(tangent @ tangent))

    def _check(self, gradient: Tensor, values: Tensor) -> None:
        if self.codimension == 0:
            raise FlowError("the loss has no curvature at the point; start at a minimiser with λ₁ > 0.")
        distance = float(torch.linalg.vector_norm(gradient) / values[-self.codimension])
        if not (0 <= distance <= ON_GAMMA and values[0] >= -KERNEL * values[-1]):
            raise FlowError(
                f"the point is not a minimiser: it is about {distance:.2g} away ({ON_GAMMA:g} is allowed), "
                f"and the smallest eigenvalue is {float(values[0]):.2g}; minimise the loss first."
            )
        if self.codimension > 1 and values[-1] - values[-2] <= SIMPLE * values[-1]:
            raise FlowError(
                f"λ₁ = {float(values[-1]):.6g} is not simple, λ₂ = {float(values[-2]):.6g}: log λ₁ has no "
                "gradient there and the flow is not defined; end earlier, or start elsewhere."
            )


@final
@dataclass(frozen=True)
class FlowPath:
    """The flow at m times.

    Attributes:
        tau: times, [m].
        points: ζ, [m, d].
        sharpness: λ₁, [m].
        q: ‖∇_Γ log λ₁‖², [m].
    """

    tau: Tensor
    points: Tensor
    sharpness: Tensor
    q: Tensor


def integrate(loss: Loss, start: Tensor, tau: Tensor, equation: FlowEquation = GRADIENT_DESCENT) -> FlowPath:
    """Integrate the flow from a minimiser, and evaluate it at some times.

    Args:
        loss: L, [d] → scalar.
        start: ζ at the first time, [d], float64.
        tau: increasing times, [m], at least two.
        equation: which flow.

    Raises:
        FlowError: the start is not a minimiser, or λ₁ is not simple there or later.
    """
    gamma = MinimizerManifold.through(loss, start, spherical=equation.spherical)
    points, reason = [gamma.at(start)], ""

    def field(_: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal reason
        try:
            return equation.velocity(gamma.project(torch.from_numpy(y))).numpy()
        except FlowError as error:
            if np.isfinite(y).all():
                reason = f": {error}"
            return np.full_like(y, np.nan)  # the solver rejects the step, and tries a smaller one

    solver = RK45(field, float(tau[0]), start.numpy(), float(tau[-1]), rtol=STEP_ERROR, atol=STEP_ERROR)
    while solver.status == "running":
        if solver.step():
            raise FlowError(f"the flow stops at τ = {solver.t:.6g}{reason}")
        interpolate = solver.dense_output()
        times = tau[(tau > solver.t_old) & (tau <= solver.t)]
        points += [gamma.project(torch.from_numpy(interpolate(float(time)))) for time in times]
        solver.y = gamma.project(torch.from_numpy(solver.y)).point.numpy()
    sharpness, q = torch.tensor([(point.sharpness, point.q) for point in points], dtype=torch.float64).T
    return FlowPath(tau, torch.stack([point.point for point in points]), sharpness, q)


def derivatives(loss: Loss, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """∇L [d], and the eigenvalues [d], ascending, and eigenvectors [d, d] of ∇²L, at a point [d].

    Raises:
        FlowError: they are not finite.
    """
    w = point.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(w), w, create_graph=True)
    basis = torch.eye(len(w), dtype=w.dtype)
    (hessian,) = torch.autograd.grad(gradient, w, basis, is_grads_batched=True)
    if not torch.isfinite(hessian).all():
        raise FlowError("the loss has no finite second derivatives at the point; take smaller steps.")
    return gradient.detach(), *torch.linalg.eigh((hessian + hessian.T) / 2)


def third_derivative_at(loss: Loss, point: Tensor, v: Tensor) -> Tensor:
    """∇(vᵀ ∇²L(w) v) at a point, for a fixed v: [d], [d] → [d]."""
    w = point.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(w), w, create_graph=True)
    (product,) = torch.autograd.grad(gradient @ v, w, create_graph=True)
    return torch.autograd.grad(product @ v, w)[0]
