"""Compare λ₁, as `measure` returns it, with differences of gradients, and look for side effects.

At the eigenvector v of λ₁ the Rayleigh quotient vᵀ(∇L(w + hv) − ∇L(w − hv)) / 2h takes no second derivative.
A large h bends the loss, a small one leaves rounding: of six steps the two neighbours that agree best count.
Differences see kinks and derivatives do not, so the usual piecewise linear layers are smooth ones here.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn

from optim_family.conformance.model_rows import relative_difference
from optim_family.curvature.chunked_loss import ChunkLoss, chunk_losses
from optim_family.curvature.double_backward import replace_functions
from optim_family.curvature.hessian import Hessian
from optim_family.networks.families.example import Example, parameter_count
from optim_family.sharpness.measure import measure
from optim_family.sharpness.probe import Probe
from optim_family.sharpness.self_check import SMOOTH, gradient_difference
from optim_family.space import ParameterSpace

STEPS: Final = tuple(10.0**-k for k in range(5, 11))  # h, as shares of ‖w‖
RTOL: Final = 1e-5  # of the search


def check_eigenvalue(example: Example) -> dict[str, Any]:
    """Measure a model in float64, in the mode in which it is.

    Returns:
        `parameters`, the λ₁ of `measure` as `value`, the other number as `by differences` with the relative
        `spread` of the two quotients, the evidence of the reading, and the names of what `changed`.

    Raises:
        UnreliableReading, FloatingPointError, ValueError, RuntimeError: as `measure`.
    """
    model = example.model.double()
    before, streams = snapshot(model), torch.get_rng_state()
    with replace_functions(**SMOOTH):
        reading = measure(model, example.loss_fn, [example.chunk], views=("raw",), rtol=RTOL, check="full")
        other, spread = _by_differences(model, example)
    after = snapshot(model)
    changed = [name for name in before | after if not _same(before.get(name), after.get(name))]
    if not torch.equal(torch.get_rng_state(), streams):
        changed.append("random numbers")
    raw = reading["raw"]
    return {
        "parameters": parameter_count(model),
        "value": raw.value,
        "by differences": other,
        "spread": spread,
        "check": raw.check,
        "converged": raw.converged,
        "products": raw.products,
        "changed": changed,
    }


def _by_differences(model: nn.Module, example: Example) -> tuple[float, float]:
    """The Rayleigh quotient at the eigenvector of λ₁, and its relative difference from its neighbour."""
    space = ParameterSpace.of(model)
    (loss,) = chunk_losses(model, example.loss_fn, [example.chunk])
    w = space.weights()  # [d]
    v = Probe("raw", rtol=RTOL).eigenpairs(Hessian([loss], space.tensors), w, None).vectors[0]
    length = float(w.norm())
    return best_neighbours([_quotient(loss, space.tensors, v, length * step) for step in STEPS])


def _quotient(loss: ChunkLoss, params: Sequence[Tensor], v: Tensor, h: float) -> float:
    return float(gradient_difference(loss, params, v, h) @ v)


def best_neighbours(quotients: list[float]) -> tuple[float, float]:
    """The second of the two neighbours that agree best, and their relative difference.

    Relative, because wrong quotients of a loss that bends much are close to each other too.

    >>> best_neighbours([5.0, 2.5, 2.0, 2.0, 3.0])
    (2.0, 0.0)
    """
    spread, quotient = min((relative_difference(a, b), b) for a, b in pairwise(quotients))
    return quotient, spread


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of parameters, buffers and gradients, and the modes of the modules."""
    state: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state |= {f"gradient of {key}": p.grad for key, p in model.named_parameters() if p.grad is not None}
    state |= {f"mode of {key or 'the model'}": torch.tensor(m.training) for key, m in model.named_modules()}
    return {key: value.detach().clone() for key, value in state.items()}


def _same(before: Tensor | None, after: Tensor | None) -> bool:
    """Whether both are there with the same bits."""
    if before is None or after is None or before.dtype != after.dtype or before.shape != after.shape:
        return False
    return before.cpu().contiguous().numpy().tobytes() == after.cpu().contiguous().numpy().tobytes()
