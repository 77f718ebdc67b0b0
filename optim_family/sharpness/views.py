"""The views of sharpness as data: which factors stand around the Hessian, and what each is called.

Every view is λ₁ of P^{-1/2} (Π) ρ · H(w) · ρ (Π) P^{-1/2} with some of the factors left out; ρ = ‖w‖,
Π = I − θθᵀ, P the optimizer's metric. For a scale-invariant loss ρ² H(w) = H(w/ρ), so that no weight
is moved to measure it. `probe` builds the operators; nothing here imports torch.
"""

from dataclasses import dataclass
from typing import Literal, final

ViewName = Literal["raw", "spherical", "riemannian", "preconditioned", "spherical-preconditioned"]
# Variants of a view, under the view's name and one of these.
MIDPOINT, BATCH = "-midpoint", "-batch"


@final
@dataclass(frozen=True)
class View:
    """Which factors stand around the Hessian.

    Attributes:
        name: as on the command line.
        spherical: ρ, the Hessian at w/‖w‖.
        tangent: Π, along the sphere only.
        preconditioned: P^{-1/2}, in the optimizer's own metric.
    """

    name: str
    spherical: bool = False
    tangent: bool = False
    preconditioned: bool = False

    @property
    def kind(self) -> tuple[bool, bool]:
        """Views that differ by the number ρ² alone share their eigenvectors, and one measurement."""
        return self.tangent, self.preconditioned


VIEWS = {
    view.name: view
    for view in (
        View("raw"),
        View("spherical", spherical=True),
        View("riemannian", spherical=True, tangent=True),
        View("preconditioned", preconditioned=True),
        View("spherical-preconditioned", spherical=True, preconditioned=True),
    )
}


def named(name: str) -> View:
    """The view of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in VIEWS:
        raise ValueError(f"there is no view {name!r}; known: {', '.join(VIEWS)}.")
    return VIEWS[name]


def parted(view: str) -> tuple[str, str]:
    """A view's name without its variant, and the variant: spherical-midpoint → spherical, -midpoint."""
    variant = next((suffix for suffix in (MIDPOINT, BATCH) if view.endswith(suffix)), "")
    return view.removesuffix(variant), variant


def without_scale(view: str) -> str:
    """The view that differs from this one by the factor ρ² alone: spherical → raw; others are themselves."""
    base, variant = parted(view)
    return ("raw" if base == "spherical" else base.removeprefix("spherical-")) + variant
