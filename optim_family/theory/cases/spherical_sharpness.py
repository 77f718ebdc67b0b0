"""The spherical sharpness needs no projection: S = ρ² λ₁(H(w)) = λ₁(H(w/ρ)).

For a scale-invariant loss, at every norm ρ of the weights,

    ⟨g, w⟩ = 0,   H(w) w = −g(w),   ρ² λ₁(H(w)) = λ₁(H(θ)).

The left side is measured by the probe at w, with Hessian-vector products; the right side from the dense
matrix at θ.

Source: scale invariance, L(cw) = L(w), differentiated once and twice in c.
"""

from collections.abc import Iterator

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.figures.style import GREY
from optim_family.sharpness.probe import Probe
from optim_family.theory.flow import Loss
from optim_family.theory.page import dots, line
from optim_family.theory.small_networks import gradients, scale_invariant
from optim_family.theory.toys import unit
from optim_family.theory.trajectory import hessian_at
from optim_family.theory.verify import NumericCheck

ProbeVsDense = tuple[Tensor, float, Tensor]

NORMS, TOLERANCE = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0), 1e-8
QUANTITIES = ("ρ² λ₁(H(w)) / λ₁(H(θ)) − 1", "⟨g, w⟩ / ‖g‖‖w‖", "‖Hw + g‖ / ‖g‖")


def observe() -> dict[str, ProbeVsDense]:
    """Compare on three losses."""
    return {name: compare(loss, unit(start)) for name, (loss, start) in scale_invariant().items()}


def compare(loss: Loss, theta: Tensor) -> ProbeVsDense:
    """Compare at all norms along one direction θ [d].

    Returns:
        ρ² λ₁(H(w)) measured by the probe, [m].
        λ₁(H(θ)) of the dense matrix.
        The errors of QUANTITIES, [3, m].
    """
    points = torch.stack([rho * theta for rho in NORMS])
    values, along, mapped = [], [], []
    for rho, w, g in zip(NORMS, points, gradients(loss, points), strict=True):
        hessian = hessian_at(loss, w)
        values.append(Probe("spherical", rtol=TOLERANCE / 10)(hessian, w).value)
        along.append(abs(g @ w) / (g.norm() * rho))
        mapped.append((hessian @ w + g).norm() / g.norm())
    probe = torch.tensor(values, dtype=theta.dtype)
    dense = float(torch.linalg.eigvalsh(hessian_at(loss, theta).dense())[-1])
    return probe, dense, torch.stack([probe / dense - 1, torch.stack(along), torch.stack(mapped)])


def checks(by_loss: dict[str, ProbeVsDense]) -> Iterator[NumericCheck]:
    """The largest errors over all losses and norms."""
    errors = torch.stack([errors for _, _, errors in by_loss.values()], dim=1)  #  [3, losses, m]
    for quantity, error in zip(QUANTITIES, errors, strict=True):
        yield NumericCheck.vanishes(f"{quantity}, the largest", error, within=TOLERANCE)


def draw(ax: Axes, by_loss: dict[str, ProbeVsDense]) -> None:
    """The raw sharpness falls as 1/ρ², the spherical sharpness is constant."""
    rho = torch.tensor(NORMS, dtype=torch.float64)
    for index, (name, (probe, dense, _)) in enumerate(by_loss.items()):
        ax.plot(rho, probe, label=f"{name}: ρ² λ₁(H(w)), by the probe", **dots(index))
        ax.plot(rho, torch.full_like(rho, dense), **line(index))
        ax.plot(rho, probe / rho**2, alpha=0.35, **line(index))
    ax.plot([], [], color=GREY, label="λ₁(H(θ)), of the dense matrix")
    ax.plot([], [], color=GREY, alpha=0.35, label="λ₁(H(w)), which falls as 1/ρ²")
    ax.set(xscale="log", yscale="log", xlabel="ρ = ‖w‖", ylabel="sharpness")
