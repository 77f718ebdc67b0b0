"""The spherical sharpness needs no projection: S = ρ² λ₁(H(w)) = λ₁(H(w/ρ)).

For a scale-invariant loss, at every norm ρ of the weights,

    ⟨g, w⟩ = 0,   H(w) w = −g(w),   ρ² λ₁(H(w)) = λ₁(H(θ)).

The left side is the probe's reading at w, by Hessian products; the right side a dense matrix at θ.

Source: scale invariance, L(cw) = L(w), differentiated once and twice in c.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.curvature.hessian import Hessian
from optim_family.figures.style import GREY
from optim_family.sharpness.probe import Probe
from optim_family.theory.drawing import dots, largest, line
from optim_family.theory.small_networks import Loss, gradients, scale_invariant
from optim_family.theory.toys import unit
from optim_family.theory.verify import Case, Finding

NORMS, TOLERANCE = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0), 1e-8


@final
@dataclass(frozen=True)
class Looks:
    """One loss, looked at from several norms ρ.

    Attributes:
        read: ρ² λ₁(H(w)) as the probe reads it, [m].
        dense: λ₁(H(θ)) of the dense matrix.
        along: |⟨g, w⟩| / (‖g‖ ‖w‖), [m].
        mapped: ‖H w + g‖ / ‖g‖, [m].
    """

    read: Tensor
    dense: float
    along: Tensor
    mapped: Tensor


def observe() -> dict[str, Looks]:
    """Three losses."""
    return {name: look(loss, unit(start)) for name, (loss, start) in scale_invariant().items()}


def look(loss: Loss, theta: Tensor) -> Looks:
    """All norms along one direction θ, [d]."""
    read, along, mapped = [], [], []
    for rho in NORMS:
        w, hessian = rho * theta, hessian_at(loss, rho * theta)
        g = gradients(loss, w[None])[0]
        read.append(Probe("spherical", rtol=TOLERANCE / 10)(hessian, w).value)
        along.append(abs(g @ w) / (g.norm() * rho))
        mapped.append((hessian @ w + g).norm() / g.norm())
    dense = float(torch.linalg.eigvalsh(hessian_at(loss, theta).dense())[-1])
    return Looks(torch.tensor(read, dtype=theta.dtype), dense, torch.stack(along), torch.stack(mapped))


def hessian_at(loss: Loss, point: Tensor) -> Hessian:
    """H at a point [d]."""
    w = point.clone().requires_grad_()
    return Hessian([lambda: loss(w)], [w], "retained")


def findings(looks: dict[str, Looks]) -> Iterator[Finding]:
    """The largest errors over all losses and norms."""
    errors = {
        "ρ² λ₁(H(w)) / λ₁(H(θ)) − 1": [seen.read / seen.dense - 1 for seen in looks.values()],
        "⟨g, w⟩ / ‖g‖‖w‖": [seen.along for seen in looks.values()],
        "‖Hw + g‖ / ‖g‖": [seen.mapped for seen in looks.values()],
    }
    for quantity, of_losses in errors.items():
        yield Finding.vanishes(f"{quantity}, the largest", largest(torch.stack(of_losses)), within=TOLERANCE)


def draw(ax: Axes, looks: dict[str, Looks]) -> None:
    """The raw sharpness falls as 1/ρ², the spherical one stands still."""
    rho = torch.tensor(NORMS, dtype=torch.float64)
    for index, (name, seen) in enumerate(looks.items()):
        ax.plot(rho, seen.read, label=f"{name}: ρ² λ₁(H(w)), read by the probe", **dots(index))
        ax.plot(rho, torch.full_like(rho, seen.dense), **line(index))
        ax.plot(rho, seen.read / rho**2, alpha=0.35, **line(index))
    ax.plot([], [], color=GREY, label="λ₁(H(θ)), of the dense matrix")
    ax.plot([], [], color=GREY, alpha=0.35, label="λ₁(H(w)), which falls as 1/ρ²")
    ax.set(xscale="log", yscale="log", xlabel="ρ = ‖w‖", ylabel="sharpness")


CASE: Final = Case("V3", observe, findings, draw)
