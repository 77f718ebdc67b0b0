"""More than one number at one point of training, as one record: what `spectra.figure` draws.

Everything is in one view, in the unit of its λ₁, so that the numbers of a record can be compared.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from optim_family.curvature.chunked_loss import ChunkLoss
from optim_family.curvature.spectral_density import spectral_density
from optim_family.curvature.trace import trace
from optim_family.geometry import Geometry
from optim_family.operators import Sandwich, Scalar, SymmetricOperator
from optim_family.sharpness.batch_sharpness import batch_sharpness
from optim_family.sharpness.layer_sharpness import layer_sharpness
from optim_family.sharpness.probe import Probe, view_operator
from optim_family.sharpness.views import View, named
from optim_family.space import ParameterSpace

LOOKS = ("density", "trace", "layers", "batch_sharpness")


def examine(
    hessian: SymmetricOperator,
    space: ParameterSpace,
    geometry: Geometry | None = None,
    *,
    view: View | str = "raw",
    looks: Iterable[str] = LOOKS,
    batches: Iterable[Sequence[ChunkLoss]] = (),
    depth: int | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """λ₁ and what is asked for beside it, each with its evidence, as JSON.

    Args:
        hessian: ∇²L [d, d] at the present weights.
        space: the trained tensors.
        geometry: of the optimizer, for thresholds and for the preconditioned views.
        view: which sharpness.
        looks: names out of density, trace, layers, batch_sharpness.
        batches: mini-batches for the last, as in `batch_sharpness`.
        depth: of the layers, as in `layers`.
        seed: of everything random.
        options: of `Probe`, for λ₁ and for the layers: rtol, max_products, k.

    Returns:
        `view`, its name; `reading`, of λ₁; and one entry for each look, by its name.

    Raises:
        ValueError: an unknown view or look, a view whose metric is not known, or a missing batch.
        FloatingPointError: a product or a gradient is not finite, or a batch has a gradient of zero.
    """
    view, weights = named(view) if isinstance(view, str) else view, space.weights()
    operator = scaled(view, hessian, weights, geometry)
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
    looks = tuple(looks)
    if wrong := [look for look in looks if look not in makers]:
        raise ValueError(f"there is no look {wrong[0]!r}; known: {', '.join(LOOKS)}.")
    reading = Probe(view, **options)(hessian, weights, geometry).as_record()
    return {"view": view.name, "reading": reading} | {look: makers[look]() for look in looks}


def scaled(
    view: View, hessian: SymmetricOperator, weights: Tensor, geometry: Geometry | None
) -> SymmetricOperator:
    """The operator of a view with its factor ρ², so that λ₁ is the value of its readings."""
    operator = view_operator(view, hessian, weights, geometry)
    rho = float(weights @ weights) ** 0.5
    return Sandwich((Scalar(operator.dim, rho),), operator) if view.spherical else operator
