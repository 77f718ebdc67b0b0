"""The layers whose second derivative torch takes in many passes, replaced by formulas that take few."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor
from torch.nn import functional

from optim_family.curvature.batch_norm import batch_norm
from optim_family.curvature.conv2d import conv2d


@contextmanager
def replace_functions(**replacements: Callable[..., Tensor]) -> Iterator[None]:
    """Replace functions of `torch.nn.functional` inside; each replacement takes the original first.

    Functions are replaced, rather than a mode entered, because checkpointed parts run a second time from
    inside a backward pass.
    """
    originals = {name: getattr(functional, name) for name in replacements}
    for name, replacement in replacements.items():
        setattr(functional, name, partial(replacement, originals[name]))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(functional, name, original)


@contextmanager
def fast_second_derivatives() -> Iterator[None]:
    """Every `batch_norm` in training mode and every `conv2d` that runs inside is differentiated by these."""
    with replace_functions(batch_norm=batch_norm, conv2d=conv2d):
        yield
