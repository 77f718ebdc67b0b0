"""The views of sharpness as data: the factors around the Hessian, and the names.

A view is λ₁ of P^{-1/2} Π ρ · H(w) · ρ Π P^{-1/2}, or of the same without some of the factors; ρ = ‖w‖,
Π = I − θθᵀ, P the optimizer's metric. For a scale-invariant loss ρ² H(w) = H(w/ρ), so that the measurement
does not move the weights. One view is the maximum S_N in the norm of the optimizer's steps instead. `probe`
builds the operators; this module does not import torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, final

from optim_family.errors import unknown


@final
@dataclass(frozen=True)
class View:
    """The factors of a view around the Hessian, and its place in tables and figures.

    Attributes:
        name: as on the command line and in records.
        spherical: has the factor ρ: the Hessian at w/‖w‖.
        tangent: has the factor Π: the tangent space of the sphere.
        preconditioned: has the factor P^{-1/2}: the optimizer's own metric.
        generalized: is no eigenvalue but S_N, the maximum of dᵀHd over N(d) = 1 in the norm N of the
            optimizer's steps; divided by N*(g) for a normalised step.
        unit: of its λ₁.
        rank: the applicable view of lowest rank represents a run.
        style: number of its colour, line style and marker in a figure of one run.
    """

    name: str
    spherical: bool = False
    tangent: bool = False
    preconditioned: bool = False
    generalized: bool = False
    unit: str = ""
    rank: int = 99
    style: int = 5

    @property
    def kind(self) -> tuple[bool, bool, bool]:
        """Views of one kind differ by the number ρ² only: they share eigenvectors, and one measurement."""
        return self.tangent, self.preconditioned, self.generalized

    @property
    def own_geometry(self) -> bool:
        """Depends on the optimizer, by its metric or its norm."""
        return self.preconditioned or self.generalized


@final
@dataclass(frozen=True)
class Variant:
    """Another measurement of a view, recorded under the view's name and a suffix.

    Attributes:
        suffix: of the name in records.
        label: appended to the label of the view in figures.
        style: added to the number of the view's style; no two sums are equal.
    """

    suffix: str
    label: str
    style: int


# A new view is one entry here.
VIEWS: Final = {
    view.name: view
    for view in (
        View("raw", unit="loss / weight²", rank=2, style=2),
        View("spherical", spherical=True, unit="loss", rank=0, style=0),
        View("riemannian", spherical=True, tangent=True, unit="loss", rank=1, style=4),
        View("preconditioned", preconditioned=True, unit="1 / learning rate", rank=4, style=3),
        View(
            "spherical-preconditioned",
            spherical=True,
            preconditioned=True,
            unit="weight² / learning rate",
            rank=3,
            style=1,
        ),
        View("generalized", generalized=True, unit="1 / learning rate", rank=5, style=6),
    )
}
MAX_ROUNDING: Final = 0.01  # relative; a reading that rounding changes by more says nothing of the network
LOWER_BOUND: Final = "lower bound"  # of the generalised view, the maximum of which is NP-hard
MIDPOINT, BATCH = "-midpoint", "-batch"
VARIANTS: Final = {
    variant.suffix: variant
    for variant in (Variant("", "", 0), Variant(MIDPOINT, ", midpoint", 52), Variant(BATCH, ", batch", 138))
}
if TYPE_CHECKING:
    ViewName = str
else:
    ViewName = Literal[tuple(VIEWS)]


def _by_rank(views: Iterable[View]) -> tuple[str, ...]:
    return tuple(view.name for view in sorted(views, key=lambda view: view.rank))


# Names by rank: without the optimizer's geometry, with it, and without metric and tangent projection.
UNPRECONDITIONED: Final = _by_rank(view for view in VIEWS.values() if not view.own_geometry)
PRECONDITIONED: Final = _by_rank(view for view in VIEWS.values() if view.own_geometry)
AMBIENT: Final = _by_rank(view for view in VIEWS.values() if not view.own_geometry and not view.tangent)
# Names for the sharpness in the optimizer's metric; for P = I these are the views without a metric.
OWN_METRIC: Final = (*PRECONDITIONED, *AMBIENT)
# Views of one kind have the same ratio; kinds are ordered by their first style.
KINDS: Final = tuple(
    _by_rank(view for view in VIEWS.values() if view.kind == kind)
    for kind in dict.fromkeys(view.kind for view in sorted(VIEWS.values(), key=lambda view: view.style))
)


def view_by_name(name: View | str) -> View:
    """The view of this name; a view is returned as it is.

    Raises:
        ValueError: no view has this name.
    """
    if isinstance(name, View):
        return name
    if name not in VIEWS:
        raise ValueError(f"{unknown('view', name, VIEWS)}.")
    return VIEWS[name]


def split_view_name(name: str) -> tuple[str, str]:
    """View and suffix of the variant of a recorded name: spherical-midpoint → spherical, -midpoint."""
    suffix = next((suffix for suffix in VARIANTS if suffix and name.endswith(suffix)), "")
    return name.removesuffix(suffix), suffix


def unscaled_view(name: str) -> str:
    """The same view without the factor ρ²: spherical → raw, raw → raw."""
    base, suffix = split_view_name(name)
    kind = VIEWS[base].kind if base in VIEWS else None
    unscaled = (view.name for view in VIEWS.values() if view.kind == kind and not view.spherical)
    return next(unscaled, base) + suffix


def label(name: str) -> str:
    """Label of a recorded name: spherical-preconditioned-midpoint → `spherical preconditioned, midpoint`."""
    base, suffix = split_view_name(name)
    remark = f" ({LOWER_BOUND})" if base in VIEWS and VIEWS[base].generalized else ""
    return base.replace("-", " ") + remark + VARIANTS[suffix].label
