"""Out of memory: how it is recognised, and the advice that is given."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psutil
import torch

from optim_family.errors import OptimFamilyError

_WANTED: Final = re.compile(r"allocate (?:an array with shape .*|\d+(?:\.\d+)? ?(?:bytes|[KMGTPE]iB))", re.I)


# The one place for this advice.
ADVICE: Final = (
    "everything written so far is intact. Try --hvp rebuilt, a smaller --ghost-batch, --limit or --model, or "
    "--precision float32; start a run that computes something else in a new folder"
)


@contextmanager
def explain_oom() -> Iterator[None]:
    """Turn a lack of memory inside into one line: how much was wanted, and the advice.

    Raises:
        OptimFamilyError: out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        wanted = _WANTED.search(str(error))
        raise OptimFamilyError(
            f"out of memory{f' trying to {wanted[0]}' if wanted else ''}; {ADVICE}"
        ) from error


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: a class of its own on a GPU, a message on a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free_bytes(device: torch.device) -> int:
    """Memory that could still be taken on a device, in bytes."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached
