"""Critical sharpness and directional smoothness of an update on a quadratic.

For the update Δ of w⁺ = w − ηΔ, with gradient g and Hessian H,

    critical sharpness      λ_c = 2/η_c = ΔᵀHΔ / ⟨g, Δ⟩,  η_c the least η with L(w − ηΔ) > L(w)
    directional smoothness  D = 2 (L(w⁺) − L(w) + η⟨g, Δ⟩) / (η²‖Δ‖²) = ΔᵀHΔ / ‖Δ‖²

Updates of gd, rmsprop, adamw and signgd on ½ Σ h w² with twelve curvatures from 0.1 to 9, measured by loss
evaluations and one gradient.

Source: A. Mishkin et al., "Directional smoothness and gradient methods" (2024); critical sharpness:
arXiv:2601.16979 (2026).
"""

from collections.abc import Iterator

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family import registry
from optim_family.sharpness.along_update import AlongUpdate, along_update
from optim_family.space import ParameterSpace
from optim_family.theory.page import EXPECTED, dots
from optim_family.theory.toys import gaussian
from optim_family.theory.verify import NumericCheck

LR, WARM_UP, CRITICAL, SMOOTHNESS = 0.05, 3, 0.01, 1e-10
CURVATURES = torch.linspace(0.1, 9, 12, dtype=torch.float64)
OPTIMIZERS = ("gd", "rmsprop", "adamw", "signgd")
Evidence = dict[str, tuple[float, float, AlongUpdate]]


def observe() -> Evidence:
    """For each optimizer ΔᵀHΔ/⟨g, Δ⟩, ΔᵀHΔ/‖Δ‖², and the measured quantities."""
    return {name: _measure(name) for name in OPTIMIZERS}


def _measure(name: str) -> tuple[float, float, AlongUpdate]:
    w = gaussian(3)(12).requires_grad_()
    optimizer = registry.load(name)([w], lr=LR, weight_decay=0.0)

    def loss() -> Tensor:
        return 0.5 * (CURVATURES * w * w).sum()

    for _ in range(WARM_UP):
        before = w.detach().clone()
        w.grad = CURVATURES * before
        optimizer.step()
    after = w.detach().clone()
    delta, gradient = (before - after) / LR, CURVATURES * before
    bend = float(delta @ (CURVATURES * delta))
    update = along_update([loss], ParameterSpace({"w": w}), before, after, LR, curvature=False)
    return bend / float(gradient @ delta), bend / float(delta @ delta), update


def checks(evidence: Evidence) -> Iterator[NumericCheck]:
    """Both quantities of each optimizer."""
    for name, (critical, smoothness, update) in evidence.items():
        measured = update.critical or 0.0, update.smoothness or 0.0
        yield NumericCheck.equal(f"{name}: critical sharpness", critical, measured[0], within=CRITICAL)
        yield NumericCheck.equal(
            f"{name}: directional smoothness", smoothness, measured[1], within=SMOOTHNESS
        )


def draw(ax: Axes, evidence: Evidence) -> None:
    """Measured over predicted, for each optimizer."""
    names = list(evidence)
    critical = [(update.critical or 0.0) / expected for expected, _, update in evidence.values()]
    smoothness = [(update.smoothness or 0.0) / expected for _, expected, update in evidence.values()]
    ax.plot(names, critical, label="critical sharpness", **dots(0))
    ax.plot(names, smoothness, label="directional smoothness", **dots(1))
    ax.axhline(1, label="closed form", **EXPECTED)
    ax.set(xlabel="optimizer", ylabel="measured / closed form", ylim=(0.98, 1.02))
