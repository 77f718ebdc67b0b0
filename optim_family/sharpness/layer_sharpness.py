"""Sharpness of each layer: λ₁ of the diagonal blocks of tensors or modules.

For the coordinates R of a layer the block is RᵀAR. λ₁(RᵀAR) is at most λ₁(A) (Cauchy); it is the sharpness if
this layer alone were trained.

Source: R. Horn, C. Johnson, "Matrix Analysis" (2012), section 4.3.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, final

import torch
from torch import Tensor

from optim_family.geometry import Geometry
from optim_family.operators import SymmetricOperator
from optim_family.sharpness.probe import Probe, Reading, view_operator, view_reading
from optim_family.sharpness.views import View, view_by_name
from optim_family.space import ParameterSpace, norm


@final
class DiagonalBlock(SymmetricOperator):
    """RᵀAR, the operator A on some coordinates; one product with A for each product.

    Args:
        middle: A.
        parts: the coordinates as disjoint slices.
    """

    def __init__(self, middle: SymmetricOperator, parts: Sequence[slice]) -> None:
        self.middle, self.parts = middle, tuple(parts)
        self.sizes = [part.stop - part.start for part in self.parts]
        self.dim = sum(self.sizes)

    def restrict(self, v: Tensor) -> Tensor:
        """Rᵀv: these coordinates of a vector, [d] → [dim]."""
        return torch.cat([v[part] for part in self.parts])

    def extend(self, v: Tensor) -> Tensor:
        """Rv: the vector with these coordinates and zeros elsewhere, [dim] → [d]."""
        extended = v.new_zeros(self.middle.dim)
        for part, values in zip(self.parts, torch.split(v, self.sizes), strict=True):
            extended[part] = values
        return extended

    def apply(self, v: Tensor) -> Tensor:
        """The product RᵀA(Rv)."""
        return self.restrict(self.middle @ self.extend(v))

    def gradient(self) -> Tensor | None:
        """Rᵀg, from the gradient g of A."""
        gradient = self.middle.gradient()
        return None if gradient is None else self.restrict(gradient)


def layers(space: ParameterSpace, depth: int | None = None) -> dict[str, list[slice]]:
    """The coordinates of each layer, by name.

    Args:
        space: the trained tensors.
        depth: the number of leading parts of a dotted name that define a layer: with 1,
            `stage1.0.conv1.weight` belongs to `stage1`. If None, each tensor is a layer.

    Raises:
        ValueError: depth is below 1.
    """
    if depth is not None and depth < 1:
        raise ValueError(f"a layer shares at least one part of its tensors' names; got the depth {depth}.")
    parts: dict[str, list[slice]] = {}
    ends = accumulate((t.numel() for t in space.tensors), initial=0)
    for name, (start, end) in zip(space.names, pairwise(ends), strict=True):
        parts.setdefault(".".join(name.split(".")[:depth]), []).append(slice(start, end))
    return parts


def layer_sharpness(
    hessian: SymmetricOperator,
    space: ParameterSpace,
    geometry: Geometry | None = None,
    *,
    view: View | str = "raw",
    depth: int | None = None,
    **options: Any,
) -> dict[str, Reading]:
    """λ₁ of the diagonal block of each layer in a view; none exceeds λ₁ of all weights.

    Args:
        hessian: ∇²L [d, d] at the present weights.
        space: the trained tensors; their names define the layers.
        geometry: of the optimizer, for thresholds and for the preconditioned views.
        view: which sharpness; ρ, the metric and the threshold are those of all weights.
        depth: 1 for the outermost modules, and so on; None for one layer per tensor.
        options: of `Probe`: k, rtol, max_products, seed.

    Returns:
        One reading for each layer, by name, in the order of the weights.

    Raises:
        ValueError: an unknown view, a view whose metric is unknown, or a depth below 1.
        FloatingPointError: a product is not finite.
    """
    view, weights = view_by_name(view), space.weights()
    length = float(norm(weights))
    operator, readings = view_operator(view, hessian, weights, geometry, length), {}
    for name, parts in layers(space, depth).items():
        begin, block = time.perf_counter(), DiagonalBlock(operator, parts)
        pairs = Probe("raw", **options).eigenpairs(block, block.restrict(weights), None)
        pairs = replace(pairs, vectors=block.extend(pairs.vectors[0])[None])
        readings[name] = view_reading(view, pairs, length, geometry, time.perf_counter() - begin)
    return readings
