"""The size of a ghost batch, whose examples share their normalisation statistics."""

import math
from typing import Final

from optim_family.errors import UsageError

# Bounds of the default: smaller ones are badly conditioned.
SMALLEST_GHOST_BATCH: Final = 16
LARGEST_GHOST_BATCH: Final = 1000


def choose_ghost_batch(size: int, batch_size: int | None, requested: int | None) -> int:
    """The ghost batch, which must divide training set and mini-batch; by default the largest that does.

    Args:
        size: examples of the training set.
        batch_size: of a mini-batch; None for the full batch.
        requested: the ghost batch that the user asks for; None for the default.

    Raises:
        UsageError: the mini-batch is larger than the training set, the request does not divide both, or
            nothing in the bounds does.
    """
    if batch_size and batch_size > size:
        raise UsageError(
            f"a mini-batch of {batch_size} is larger than the training set of {size}; choose --batch-size"
        )
    whole = math.gcd(size, batch_size or size)
    divisors = [n for n in range(2, whole + 1) if whole % n == 0]
    sizes = f"the training set of {size}" + (f" and the mini-batch of {batch_size}" if batch_size else "")
    if requested in divisors:
        return requested
    if requested is not None:
        near = sorted(sorted(divisors, key=lambda n: abs(n - requested))[:4])
        choice = f"choose one of {', '.join(map(str, near))}, or " if near else "choose "
        numbers = {"--limit": size, "--batch-size": batch_size or 0}
        other = " and ".join(name for name, n in numbers.items() if requested < 2 or n % requested)
        raise UsageError(f"a ghost batch of {requested} does not divide {sizes}; {choice}another {other}")
    best = max((n for n in divisors if n <= LARGEST_GHOST_BATCH), default=1)
    if best < min(SMALLEST_GHOST_BATCH, batch_size or size):
        raise UsageError(
            f"a ghost batch must divide {sizes}, and none of {SMALLEST_GHOST_BATCH} to {LARGEST_GHOST_BATCH} "
            "does; choose another --limit or --batch-size, such as a round number"
            + (f", or say --ghost-batch {best}" * (best > 1))
        )
    return best
