"""Count the memory of a graph; recognise out-of-memory errors, and advise on them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, final

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from optim_family.errors import OptimFamilyError

_ALLOCATION: Final = re.compile(
    r"allocate (?:an array with shape .*|\d+(?:\.\d+)? ?(?:bytes|[KMGTPE]iB))", re.I
)
# Of torch on a CPU, of the CUDA runtime, and of cuBLAS, cuDNN and cuSOLVER, which allocate by themselves.
_MESSAGES: Final = re.compile(
    r"can't allocate memory|CUDA error: out of memory|(?:CUBLAS|CUDNN|CUSOLVER)_STATUS_\w*ALLOC\w*FAILED"
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


def out_of_memory(error: Exception) -> bool:
    """Whether torch ran out of memory: its own allocator has an error class, others have messages."""
    return isinstance(error, torch.OutOfMemoryError) or bool(_MESSAGES.search(str(error)))


def free_bytes(device: torch.device) -> int:
    """Free memory of a device in bytes, with the unused cache of torch."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


@final
class SavedTensors:
    """Counts the tensors that graphs keep alive, the weights left out; the graphs work as without it."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = {t.untyped_storage().data_ptr() for t in weights}
        self._sizes: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        """Of all tensors that were saved, each storage once."""
        return sum(size for pointer, size in self._sizes.items() if pointer not in self._weights)

    def hooks(self) -> AbstractContextManager[None]:
        """Graphs that are built inside count."""
        return saved_tensors_hooks(self._pack, _unpack)

    def _pack(self, t: Tensor) -> tuple[Tensor, int]:
        self._sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t.detach(), t._version  # keeping the tensor itself would make a reference cycle


def _unpack(saved: tuple[Tensor, int]) -> Tensor:
    """The tensor; torch makes this check of graphs without hooks only."""
    t, version = saved
    if t._version != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"a tensor of shape {list(t.shape)} is at version {t._version}; expected version {version}."
        )
    return t
