"""Recognise out-of-memory errors, and advise on them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psutil
import torch

from optim_family.errors import OptimFamilyError

_ALLOCATION: Final = re.compile(
    r"allocate (?:an array with shape .*|\d+(?:\.\d+)? ?(?:bytes|[KMGTPE]iB))", re.I
)


ADVICE: Final = (
    "everything written so far is intact. Try --hvp rebuilt, a smaller --ghost-batch, --limit or --model, or "
    "--precision float32; changed options make another run: give it a new folder with --out"
)


@contextmanager
def explain_oom() -> Iterator[None]:
    """Turn an out-of-memory error into one line: the size of the allocation, and the advice.

    Raises:
        OptimFamilyError: out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        allocation = _ALLOCATION.search(str(error))
        attempt = f" trying to {allocation[0]}" if allocation else ""
        raise OptimFamilyError(f"out of memory{attempt}; {ADVICE}") from error


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: it has an error class for a GPU, and a message for a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free_bytes(device: torch.device) -> int:
    """Free memory of a device in bytes, with the unused cache of torch."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached
