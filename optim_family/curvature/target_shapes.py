"""Why a loss fails for the outputs of a model and their targets, where their shapes or types show it."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor


def target_mismatch(loss_fn: Callable[[Any, Any], Any], outputs: Any, y: Any) -> str:
    """One line that names the loss, both shapes and types, and the targets that would fit; empty if y fits.

    Targets are numbers like the outputs [n, C, …], or integer classes [n, …].

    Args:
        loss_fn: that has raised an exception.
        outputs: of the model.
        y: the targets.
    """
    if not (isinstance(outputs, Tensor) and isinstance(y, Tensor) and outputs.ndim):
        return ""
    alike = list(outputs.shape)
    classes = alike[:1] + alike[2:]
    integer = not (y.is_floating_point() or y.is_complex())
    if list(y.shape) == alike:
        way_out = "give y as floating-point numbers" if integer else ""
    elif len(alike) > 1 and list(y.shape) == classes:
        way_out = "" if integer else f"give y as integer classes, or in shape {alike}"
    else:
        integers = f"in shape {classes} as integer classes, or " if len(alike) > 1 else ""
        way_out = f"give y {integers}in shape {alike}"
    plain = inspect.unwrap(loss_fn)
    name = getattr(plain, "__name__", type(plain).__name__)
    return way_out and f"{name} fails for outputs of {_text(outputs)} and y of {_text(y)}: {way_out}"


def _text(tensor: Tensor) -> str:
    """`shape [20, 10], float32`."""
    return f"shape {list(tensor.shape)}, {str(tensor.dtype).removeprefix('torch.')}"
