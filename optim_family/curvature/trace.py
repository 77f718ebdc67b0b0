"""The trace of a symmetric operator from a few products: Hutch++.

    tr A = tr QᵀAQ + E[gᵀ(I − QQᵀ) A (I − QQᵀ) g],    Q = an orthonormal basis of the range of A S

S (the sketch) and g have random signs ±1. The first term is exact; only the second is estimated, so that the
error vanishes if the rank of A is at most that of S. Without a sketch this is Hutchinson's estimator.

Source: R. Meyer, C. Musco, C. Musco, D. Woodruff, "Hutch++: optimal stochastic trace estimation", SOSA 2021;
M. Hutchinson, "A stochastic estimator of the trace of the influence matrix", Comm. Statist. Simulation
Comput. 18 (1989).
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor

from optim_family.operators import SymmetricOperator, require_finite_products


@final
@dataclass(frozen=True)
class Trace:
    """An estimate of tr A, the sum of all eigenvalues, with the evidence for it.

    Attributes:
        value: the unbiased estimate, in the unit of the eigenvalues.
        standard_error: of the second term, over the samples.
        captured: tr QᵀAQ, the exact term.
        sketch: number of columns of S and Q.
        samples: number of vectors g.
        products: products with the operator, 2 sketch + samples.
        seconds: wall time.
    """

    value: float
    standard_error: float
    captured: float
    sketch: int
    samples: int
    products: int
    seconds: float

    def as_record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def trace(
    operator: SymmetricOperator, reference: Tensor, *, sketch: int = 10, samples: int = 10, seed: int = 0
) -> Trace:
    """tr A by Hutch++, of the operator of any view.

    Args:
        operator: the symmetric map A on ℝᵈ.
        reference: a tensor of the dtype and on the device of the products, such as the weights.
        sketch: number of columns of S, at two products each; at most d. 0 gives Hutchinson's estimator.
            Memory is about 2 · sketch · d numbers.
        samples: number of vectors g, at one product each.
        seed: of all random signs.

    Raises:
        ValueError: sketch is negative, or samples is below 2: one sample has no standard error.
        FloatingPointError: a product is not finite.

    Example:
    >>> from optim_family.operators import Diagonal
    >>> round(trace(Diagonal(torch.tensor([1.0, 1.0, 4.0])), torch.empty(0)).value, 4)
    6.0
    """
    if sketch < 0 or samples < 2:
        raise ValueError(
            f"a trace needs a sketch of 0 or more and at least 2 samples; got {sketch} and {samples}."
        )
    begin = time.perf_counter()
    sketch = min(sketch, operator.dim)
    generator = torch.Generator(reference.device).manual_seed(seed)

    def signs() -> Tensor:
        ones = torch.randint(
            2, (operator.dim,), generator=generator, dtype=reference.dtype, device=reference.device
        )
        return ones.mul_(2).sub_(1)

    def form(v: Tensor) -> Tensor:
        return torch.dot(v, operator @ v)

    basis = _range(operator, signs, reference.new_empty(sketch, operator.dim))  #              [sketch, d]
    exact = sum(map(form, basis), reference.new_zeros(()))
    rest = torch.stack([form(g - basis.T @ (basis @ g)) for g in (signs() for _ in range(samples))])
    captured, mean = float(exact), float(rest.mean())  # the first synchronisation
    require_finite_products(captured + mean)
    return Trace(
        value=captured + mean,
        standard_error=float(rest.std()) / math.sqrt(samples),
        captured=captured,
        sketch=sketch,
        samples=samples,
        products=2 * sketch + samples,
        seconds=time.perf_counter() - begin,
    )


def _range(operator: SymmetricOperator, draw: Callable[[], Tensor], rows: Tensor) -> Tensor:
    """An orthonormal basis of the range of A S, in the preallocated rows [sketch, d]."""
    for row in rows:
        row.copy_(operator @ draw())
    columns: Tensor = torch.linalg.qr(rows.T).Q
    return columns.T.contiguous()
