"""The processes that share one run: a single one, or those that torchrun started.

    L = Σ_c L_c        each process has its share of the ghost batches c

One all-reduce adds up a gradient with its loss, and one each product with the Hessian; from these sums every
process computes the same for itself, and the first one alone writes. A sum carries one more number: how many
processes were asked to stop, so that all of them stop before the same step or the same product.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar, final

import torch
import torch.distributed as dist
from torch import Tensor

from optim_family.errors import OptimFamilyError, Stopped, one_line
from optim_family.space import flatten, unflatten
from optim_family.training import checkpoint
from optim_family.training.stop_signal import StopSignal

T = TypeVar("T")

# How long one process waits for the others. One that died is noticed at once; this is for one that hangs.
PATIENCE: Final = timedelta(seconds=50)
_GO_ON: Final = "the same command with --resume continues"


class ProcessGroup(ABC):
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: which of them this is; the first, 0, writes.
        size: how many there are.
        processes_per_device: how many of them share the memory of this device.
    """

    rank: int = 0
    size: int = 1
    processes_per_device: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @abstractmethod
    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Those of the items that this process deals with."""

    @abstractmethod
    def all_reduce(self, *tensors: Tensor) -> list[Tensor]:
        """Each tensor added up over the processes, by one all-reduce for all of them.

        Raises:
            Stopped: another process has ended.
        """

    def all_reduce_vector(self, vector: Tensor) -> Tensor:
        """One vector added up over the processes, [d] → [d]."""
        return self.all_reduce(vector)[0]

    @abstractmethod
    def broadcast(self, value: T) -> T:
        """What the first process has here; a tree as of a checkpoint."""

    def require_equal(self, what: str, value: object) -> None:
        """Make sure that this process has what the first has.

        Raises:
            OptimFamilyError: it has something else.
        """
        if self.broadcast(value) != value:
            raise OptimFamilyError(
                f"process {self.rank} of {self.size} has other {what} than the first; all need the same "
                "command, data, libraries and hardware"
            )

    @abstractmethod
    def check(self, stop: StopSignal) -> None:
        """Go on, or not.

        Raises:
            Stopped: some process was asked to stop, and all know it.
        """


@final
class SingleProcess(ProcessGroup):
    """One process: whatever is to be shared is all its own."""

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """All of them."""
        return items

    def all_reduce(self, *tensors: Tensor) -> list[Tensor]:
        """The tensors themselves."""
        return list(tensors)

    def broadcast(self, value: T) -> T:
        """The value itself."""
        return value

    def check(self, stop: StopSignal) -> None:
        """Go on, or not."""
        stop.check()


@final
class TorchrunGroup(ProcessGroup):
    """The processes that torchrun started, on one or several machines.

    Remembers the wish of this process to stop, whether any had one at the last sum, and what was sent.

    Attributes:
        sums, sent: how many all-reduces there were, and of how many bytes.
        lost: whether another process has ended.
    """

    def __init__(self) -> None:
        self.sums = self.sent = 0
        self.lost = self._agreed = False
        self._wish: Stopped | None = None
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if gpus:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % gpus)
        own = 0 < beside <= gpus
        dist.init_process_group("cpu:gloo,cuda:nccl" if own else "gloo", timeout=PATIENCE)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.processes_per_device = 1 if own else beside
        self.self_test(torch.device("cuda" if own else "cpu"))

    def self_test(self, device: torch.device) -> None:
        """Add up what has a known sum, Σ_r (r + 1) [1, …, 8].

        Raises:
            OptimFamilyError: something else comes out.
        """
        for dtype in (torch.float32, torch.float64):
            known = torch.arange(1, 9, dtype=dtype, device=device)
            got, wanted = (
                self.all_reduce_vector((self.rank + 1) * known),
                self.size * (self.size + 1) // 2 * known,
            )
            if not torch.equal(got, wanted):
                raise OptimFamilyError(
                    f"the all-reduce of {self.size} processes gave {got.tolist()} where {wanted.tolist()} is "
                    f"right ({dist.get_backend()}, {device}); nothing was computed"
                )

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Every size-th, so that no process has more than one item more than another."""
        return items[self.rank :: self.size]

    def all_reduce(self, *tensors: Tensor) -> list[Tensor]:
        """Each tensor added up over the processes, by one all-reduce for all of them."""
        packed = flatten([*tensors, tensors[0].new_tensor(float(self._wish is not None))])
        try:
            dist.all_reduce(packed)
        except RuntimeError as error:
            raise self._lose(error) from error
        self.sums, self.sent = self.sums + 1, self.sent + packed.nbytes
        self._agreed = bool(packed[-1] > 0)
        return [part.to(t.dtype) for part, t in zip(unflatten(packed[:-1], tensors), tensors, strict=True)]

    def broadcast(self, value: T) -> T:
        """What the first process has here."""
        data = bytearray(checkpoint.pack({"value": value}) if self.is_main_process else b"")
        try:
            length = torch.tensor(len(data))
            dist.broadcast(length, 0)
            buffer = torch.frombuffer(data or bytearray(int(length)), dtype=torch.uint8)
            dist.broadcast(buffer, 0)
        except RuntimeError as error:
            raise self._lose(error) from error
        received: Any = checkpoint.unpack(buffer.numpy().tobytes())["value"]
        return value if self.is_main_process else received

    def check(self, stop: StopSignal) -> None:
        """Go on, or not: what the last sum said decides, which all processes know."""
        try:
            stop.check()
        except Stopped as wish:
            self._wish = wish
        if self._agreed:
            raise self._wish or Stopped(f"stopped, because another process of this run was; {_GO_ON}")

    def barrier(self) -> None:
        """Wait for the others, so that none is killed for being later than the first to end."""
        if not self.lost:
            self.all_reduce_vector(torch.zeros(1))

    def _lose(self, error: RuntimeError) -> Stopped:
        self.lost = True
        return Stopped(
            f"another of the {self.size} processes of this run has ended or hangs ({one_line(error)}); "
            + _GO_ON
        )


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """The processes that share this run, for as long as it lasts.

    Raises:
        OptimFamilyError: their all-reduce gives wrong sums.
    """
    if not dist.is_torchelastic_launched():
        yield SingleProcess()
        return
    group = TorchrunGroup()
    try:
        yield group
        group.barrier()
    except Stopped:
        group.barrier()
        raise
    finally:
        if not group.lost:
            dist.destroy_process_group()
