"""Terms of a sum of operators whose product with a vector is unlike that of the others.

Each product A_c q, divided by the share of c, is projected at random onto a few numbers, which keep distances
up to a few per cent; N products in ℝᵈ need not be stored.

Source: M. Charikar, K. Chen, M. Farach-Colton, "Finding frequent items in data streams", Theor. Comput. Sci.
312 (2004), for the sketch.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optim_family.operators import SymmetricOperator

# Numbers of a sketch.
SKETCH: Final = 128
# A term stands out if its product is this many median deviations farther from the median product than usual.
OUTLIER: Final = 6.0

Array = NDArray[np.float64]


def sketched_product(
    operator: SymmetricOperator, q: Tensor, generator: torch.Generator
) -> tuple[Tensor, Array]:
    """A q [d], and a sketch of the product of each term over its share, [N, SKETCH]."""
    bucket = torch.randint(SKETCH, q.shape, generator=generator, device=q.device)
    sign = torch.randint(2, q.shape, generator=generator, device=q.device).to(q.dtype) * 2 - 1
    shares = np.array(operator.shares)
    sketches = torch.zeros(len(shares), SKETCH, dtype=q.dtype, device=q.device)

    def see(index: int, term: Tensor) -> None:
        sketches[index] = torch.zeros_like(sketches[index]).index_add_(0, bucket, sign * term)

    product = operator.apply_by_terms(q, see).detach()
    sums = operator.all_reduce_terms(sketches.flatten()).view_as(sketches)
    return product, sums.double().cpu().numpy() / shares[:, None]


def outliers(sketches: Array) -> list[int]:
    """Rows [N, s] that are far from the median row."""
    distance = np.linalg.norm(sketches - np.median(sketches, axis=0), axis=1)
    median = float(np.median(distance))
    spread = max(float(np.median(np.abs(distance - median))), 1e-3 * median)
    return [int(index) for index in np.flatnonzero(distance > median + OUTLIER * spread)]
