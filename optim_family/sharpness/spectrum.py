"""Spectral quantities at one point of training, as one record, which `figures.spectrum_figure` draws.

All quantities are in one view and in the unit of its λ₁, so that the numbers of a record are comparable.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from optim_family.curvature.chunked_loss import ChunkLoss
from optim_family.curvature.spectral_density import spectral_density
from optim_family.curvature.trace import trace
from optim_family.geometry import Geometry
from optim_family.operators import CongruenceOperator, Scalar, SymmetricOperator
from optim_family.sharpness.batch_sharpness import batch_sharpness
from optim_family.sharpness.layer_sharpness import layer_sharpness
from optim_family.sharpness.probe import Probe, view_operator
from optim_family.sharpness.views import View, view_by_name
from optim_family.space import ParameterSpace

QUANTITIES = ("density", "trace", "layers", "batch_sharpness")


def examine(
    hessian: SymmetricOperator,
    space: ParameterSpace,
    geometry: Geometry | None = None,
    *,
    view: View | str = "raw",
    quantities: Iterable[str] = QUANTITIES,
    looks: Iterable[str] | None = None,
    batches: Iterable[Sequence[ChunkLoss]] = (),
    depth: int | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """λ₁ and other quantities of the same Hessian, each with its evidence, as JSON.

    Args:
        hessian: ∇²L [d, d] at the present weights.
        space: the trained tensors.
        geometry: of the optimizer, for thresholds and for the preconditioned views.
        view: of all quantities.
        quantities: any of density, trace, layers, batch_sharpness.
        looks: the former name of `quantities`.
        batches: mini-batches for `batch_sharpness`, as there.
        depth: of the layers, as in `layers`.
        seed: of all random numbers.
        options: of `Probe`, for λ₁ and for the layers: rtol, max_products, k.

    Returns:
        The name of the `view`, the `reading` of λ₁, and one entry for each quantity, by name.

    Raises:
        ValueError: an unknown view or quantity, a view whose metric is unknown, or no batches.
        FloatingPointError: a product or a gradient is not finite, or the gradient of a batch is zero.
    """
    view, weights = view_by_name(view), space.weights()
    operator = scaled_view_operator(view, hessian, weights, geometry)
    options |= {"seed": seed}
    makers: dict[str, Callable[[], Any]] = {
        "density": lambda: spectral_density(operator, weights, seed=seed).as_record(),
        "trace": lambda: trace(operator, weights, seed=seed).as_record(),
        "layers": lambda: {
            name: reading.as_record()
            for name, reading in layer_sharpness(
                hessian, space, geometry, view=view, depth=depth, **options
            ).items()
        },
        "batch_sharpness": lambda: batch_sharpness(batches, space.tensors, geometry, view=view).as_record(),
    }
    names = tuple(quantities if looks is None else looks)
    if unknown := [name for name in names if name not in makers]:
        raise ValueError(f"there is no quantity {unknown[0]!r}; known: {', '.join(QUANTITIES)}.")
    reading = Probe(view, **options)(hessian, weights, geometry).as_record()
    return {"view": view.name, "reading": reading} | {name: makers[name]() for name in names}


def scaled_view_operator(
    view: View, hessian: SymmetricOperator, weights: Tensor, geometry: Geometry | None
) -> SymmetricOperator:
    """The operator of a view with its factor ρ²: its λ₁ is the value of a reading."""
    operator = view_operator(view, hessian, weights, geometry)
    rho = float(weights @ weights) ** 0.5
    return CongruenceOperator((Scalar(operator.dim, rho),), operator) if view.spherical else operator
