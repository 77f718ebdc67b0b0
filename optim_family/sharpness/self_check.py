"""Check on one chunk, at the cost of a few gradients, that the operator is the second derivative of the loss.

1. Loss and gradient, evaluated twice at the same weights, agree.
2. A difference of gradients along v, (∇L(w + hv) − ∇L(w − hv)) / 2h, agrees with ∇²L v. The direction v is
   itself a Hessian-vector product, so it has no part along weights that the loss treats as constants by
   design. Differences see kinks and derivatives do not: the check replaces the usual piecewise linear layers
   by smooth ones, and where other kinks remain a disagreement is not judged.
3. The graph of the loss contains no reentrant checkpoint, which hides the part inside.
4. If every example is given twice, the loss stays the same (a mean) and does not double (a sum).
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from optim_family.curvature.chunked_loss import ChunkLoss, ModelLoss, run_isolated
from optim_family.curvature.double_backward import replace_functions
from optim_family.curvature.hessian import Hessian, chunk_gradient, require_finite
from optim_family.curvature.krylov import NotSymmetric
from optim_family.errors import UnreliableReading
from optim_family.space import flatten, norm, unflatten

Check = Literal["full", "once", "off"]

# Steps h of a difference, as shares of ‖w‖: the first one; each further step is a quarter of the one before.
STEPS: Final = {torch.float64: 1e-3, torch.float32: 1e-2}
MAX_STEPS: Final = 12
# The differences of two steps must agree to AGREEMENT. A product is then refused if it differs from them by
# more than TOLERANCE, and by more than MARGIN times their disagreement.
AGREEMENT, MARGIN = 0.02, 20.0
TOLERANCE: Final = {torch.float64: 1e-4, torch.float32: 0.02}
# A loss of fewer machine epsilons is 1 − p for probabilities p close to 1, with hardly one correct digit.
LOSS_ROUNDINGS: Final = 1e3
PASSED: Final = "passed"

CAUSES: Final = (
    "a part of the loss held constant (detach, no_grad, spectral_norm in training mode, a checkpoint of your "
    "own), a function with a backward of its own, a hook on an activation, or an operation whose second "
    "derivative is wrong in torch"
)
_checked: "weakref.WeakKeyDictionary[nn.Module, set[Any]]" = weakref.WeakKeyDictionary()


def check_once(chunks: Sequence[ChunkLoss], params: Sequence[Tensor], check: Check = "once") -> str:
    """`check_loss`, if it has not passed for this model, mode and shape of the first chunk.

    Raises:
        UnreliableReading, FloatingPointError, ValueError: as `check_loss`.
    """
    first = chunks[0]
    if check == "off":
        return ""
    if check == "full" or not isinstance(first, ModelLoss):
        return check_loss(chunks, params)
    model = first.isolation.model
    known, key = _checked.setdefault(model, set()), (model.training, len(chunks) > 1, *_shapes(first.pair))
    if key in known:
        return ""
    verdict = check_loss(chunks, params)
    known.add(key)
    return verdict


def check_loss(chunks: Sequence[ChunkLoss], params: Sequence[Tensor]) -> str:
    """`passed`, or the reason why the check has no result on the first chunk.

    Args:
        chunks: closures whose sum is the loss.
        params: the tensors that w consists of.

    Raises:
        UnreliableReading: the operator is not the second derivative of the loss; says the likely causes.
        FloatingPointError: the loss is not finite.
        ValueError: an operation in the loss has no second derivative.
    """
    first = chunks[0]
    (loss, gradient), (again, same) = chunk_gradient(first, params), chunk_gradient(first, params)
    require_finite([loss])
    eps = torch.finfo(gradient.dtype).eps
    hessian = Hessian([first], params, "rebuilt")
    start = gradient if bool(gradient.any()) else torch.ones_like(gradient)
    product = hessian @ (start / float(norm(start)) * _length(params))
    graph = hessian.graph
    coarse = max(eps, graph.machine_epsilon if graph else 0.0)
    _require_function(loss, again, gradient, same, coarse)
    if len(chunks) > 1 and isinstance(first, ModelLoss):
        _require_mean(first)
    if graph and graph.reentrant:
        raise UnreliableReading(
            f"{graph.reentrant[0]} is a reentrant checkpoint, in which weights count as constants: use "
            "torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
        )
    if coarse > torch.finfo(torch.float32).eps:
        return f"not checked: computed in a format with machine epsilon {coarse:.2g}"
    along = product if bool(product.any()) else start
    verdict = _compare(first, params, along / float(norm(along)), eps * float(norm(gradient)), float(loss))
    if verdict != PASSED and graph and graph.once:
        raise UnreliableReading(
            f"{graph.once[0]} is marked @once_differentiable, so that terms may be missing: write its "
            "backward with differentiable operations, and remove the mark"
        )
    return verdict


@contextmanager
def explain_products() -> Iterator[None]:
    """Turn products that contradict each other, or are not finite, into one line with the likely causes.

    Raises:
        UnreliableReading: inside, products were not those of one symmetric operator.
        FloatingPointError: a product was not finite.
    """
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(
            "a product with the Hessian is not finite, although the gradient is: at these weights the loss "
            "has no second derivative, as a norm or a root has none at 0; add a small number inside it."
        ) from error
    except NotSymmetric as error:
        raise UnreliableReading(f"{error}. Likely causes, in order: {CAUSES}; or randomness in it") from error


def _compare(chunk: ChunkLoss, params: Sequence[Tensor], v: Tensor, rounding: float, loss: float) -> str:
    """Differences of gradients, each right to the rounding, along the unit vector v against the product."""
    with replace_functions(**SMOOTH):
        hessian, length = Hessian([chunk], params, "rebuilt"), _length(params)
        product = hessian @ (v * length)
        dtype = torch.float64 if v.dtype == torch.float64 else torch.float32
        h, before = STEPS[dtype], None
        spread = mismatch = float("inf")
        for _ in range(MAX_STEPS):
            now = gradient_difference(chunk, params, v * length, h)
            noise, size = rounding / h, float(norm(now))
            if size <= 10 * noise:  # a derivative of zero: what is left is rounding
                size = max(size, float(norm(product)))
            if before is not None:
                spread = max(float(norm(now - before)), noise) / (size or 1.0)
                mismatch = float(norm(now - product)) / (max(size, float(norm(product))) or 1.0)
                if spread < AGREEMENT or noise > AGREEMENT * size:  # smaller steps only lose digits
                    break
            before, h = now, h / 4
    kinks = hessian.graph.kinks if hessian.graph else ()
    if spread < AGREEMENT and mismatch <= max(TOLERANCE[dtype], MARGIN * spread):
        return PASSED
    if kinks or _has_max_norm(chunk):
        return f"not checked: piecewise linear ({', '.join(kinks) or 'max_norm'})"
    if not spread < AGREEMENT:
        return "not checked: differences of gradients are too noisy"
    if abs(loss) < LOSS_ROUNDINGS * torch.finfo(v.dtype).eps:
        return f"not checked: a loss of {loss:.2g} is close to the rounding of {v.dtype}"
    raise UnreliableReading(
        f"a product with the Hessian differs by {mismatch:.2g} of its size from a difference of gradients. "
        f"Likely causes, in order: {CAUSES}. check='off' measures what autograd takes for it"
    )


def _length(params: Sequence[Tensor]) -> float:
    """‖w‖, which makes products as large as what a step does to the gradient; 1 for weights of zero."""
    return float(norm(flatten(p.detach() for p in params))) or 1.0


def gradient_difference(chunk: ChunkLoss, params: Sequence[Tensor], v: Tensor, h: float) -> Tensor:
    """(∇L(w + hv) − ∇L(w − hv)) / 2h, [d], which is ∇²L v up to terms of h² and rounding / h."""
    held = [p.data for p in params]
    ends = []
    try:
        for step in (h, -h):
            # Other data rather than data changed in place: graphs that the caller holds stay valid.
            for p, data, part in zip(params, held, unflatten(v, held), strict=True):
                p.data = data + (step * part).to(data.dtype)
            ends.append(chunk_gradient(chunk, params)[1])
    finally:
        for p, data in zip(params, held, strict=True):
            p.data = data
    return (ends[0] - ends[1]) / (2 * h)


def _require_function(loss: Tensor, again: Tensor, gradient: Tensor, same: Tensor, eps: float) -> None:
    far = float(norm(gradient - same)) > 1e3 * eps * float(norm(gradient))
    if far or abs(float(loss) - float(again)) > 1e3 * eps * abs(float(loss)):
        raise UnreliableReading(
            f"the loss is not a function of the weights: evaluated twice it is {float(loss):.7g} and "
            f"{float(again):.7g}. Likely causes, in order: random numbers from a generator of your own, "
            "state that the model or the loss keeps between calls, operations that are not deterministic"
        )


def _require_mean(chunk: ModelLoss) -> None:
    """Refuse a loss that sums over examples, where chunks are weighted as means."""
    x, y = chunk.pair
    if not (isinstance(x, Tensor) and isinstance(y, Tensor) and y.ndim and len(x) == len(y)):
        return

    @torch.no_grad()
    def twice() -> tuple[Tensor, Tensor] | None:
        outputs = chunk.isolation.model(x)
        if not (isinstance(outputs, Tensor) and outputs.ndim and len(outputs) == len(y)):
            return None
        once = chunk.loss_fn(outputs, y)
        return once, chunk.loss_fn(torch.cat([outputs, outputs]), torch.cat([y, y]))

    try:
        losses = run_isolated(chunk, twice)
    except (RuntimeError, ValueError, TypeError, IndexError):  # a loss of just these examples
        return
    if losses and float(losses[0]) and abs(float(losses[1] / losses[0]) - 2) < 1e-3:
        raise UnreliableReading("loss_fn sums over the examples; several chunks need their mean")


def _has_max_norm(chunk: ChunkLoss) -> bool:
    modules = chunk.isolation.model.modules() if isinstance(chunk, ModelLoss) else ()
    return any(getattr(module, "max_norm", None) is not None for module in modules)


def _shapes(part: Any) -> Iterator[Any]:
    if isinstance(part, Tensor):
        yield tuple(part.shape)
    elif isinstance(part, dict):
        for value in part.values():
            yield from _shapes(value)
    elif isinstance(part, tuple | list):
        for value in part:
            yield from _shapes(value)


def _softplus(original: Callable[..., Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return functional.softplus(input)


def _average_pool(
    original: Callable[..., Any],
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices or dilation not in (1, (1, 1), [1, 1]):
        return original(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return functional.avg_pool2d(input, kernel_size, stride, padding, ceil_mode)


SMOOTH: Final[dict[str, Callable[..., Any]]] = {
    "relu": _softplus,
    "leaky_relu": _softplus,
    "relu6": _softplus,
    "hardtanh": _softplus,
    "hardsigmoid": lambda original, input, inplace=False: torch.sigmoid(input),
    "hardswish": lambda original, input, inplace=False: functional.silu(input),
    "max_pool2d": _average_pool,
}
