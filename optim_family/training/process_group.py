"""The processes that share one run: a single process, or those that torchrun started.

    L = Σ_c L_c        the ghost batches c are sharded over the processes

One all-reduce sums a gradient with its loss, and one each Hessian-vector product. From these sums every
process computes the same step; only rank 0 writes. An all-reduce carries one more number, how many processes
have a stop request, so that all of them stop before the same step or the same product.
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
from optim_family.training.loss_log import STEPS_PER_READ
from optim_family.training.stop_signal import StopSignal

T = TypeVar("T")

TIMEOUT: Final = timedelta(seconds=50)  # for a process that hangs; a crash is detected at once
_RESUME_HINT: Final = "repeat the command with --resume to continue"


class ProcessGroup(ABC):
    """The processes of a run, seen from one of them.

    Attributes:
        rank: of this process; rank 0 is the main process and writes.
        size: number of processes.
        processes_per_device: number of processes that share the memory of this device.
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
        """The items that this process handles."""

    @abstractmethod
    def all_reduce(self, *tensors: Tensor) -> list[Tensor]:
        """Each tensor summed over the processes, in one all-reduce.

        Raises:
            Stopped: another process has ended.
        """

    def all_reduce_vector(self, vector: Tensor) -> Tensor:
        """One vector summed over the processes, [d] → [d]."""
        return self.all_reduce(vector)[0]

    @abstractmethod
    def broadcast(self, value: T) -> T:
        """The value of the main process; a tree as in a checkpoint."""

    def require_equal(self, what: str, value: object) -> None:
        """Check that this process has the value of the main process.

        Raises:
            OptimFamilyError: the values differ.
        """
        if self.broadcast(value) != value:
            raise OptimFamilyError(
                f"process {self.rank} of {self.size} has other {what} than the first; all processes need the "
                "same command, data, libraries and hardware"
            )

    @abstractmethod
    def check(self, stop: StopSignal) -> None:
        """Raise Stopped if any process has a stop request that all processes know."""


@final
class SingleProcess(ProcessGroup):
    """One process, which handles every item."""

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """All items."""
        return items

    def all_reduce(self, *tensors: Tensor) -> list[Tensor]:
        """The tensors themselves."""
        return list(tensors)

    def broadcast(self, value: T) -> T:
        """The value itself."""
        return value

    def check(self, stop: StopSignal) -> None:
        """Raise Stopped if there is a stop request."""
        stop.check()


@final
class TorchrunGroup(ProcessGroup):
    """The processes that torchrun started, on one or several machines.

    Remembers the stop request of this process, and whether any process had one at the last all-reduce.

    Attributes:
        all_reduce_count, bytes_sent: number of all-reduces, and their bytes.
        lost: whether another process has ended.
    """

    def __init__(self) -> None:
        self.all_reduce_count = self.bytes_sent = 0
        self.lost = self._any_stop_request = False
        self._flags: list[Tensor] = []  # of the all-reduces whose stop requests have not been read
        self._stop_request: Stopped | None = None
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        own_gpu, device = 0 < local_size <= gpus, None
        if gpus:
            card = int(os.environ.get("LOCAL_RANK", 0)) % gpus
            torch.cuda.set_device(card)
            device = torch.device("cuda", card) if own_gpu else None
        # A hanging process shall raise an error here; without this NCCL's watchdog would kill all the others.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        backend = "cpu:gloo,cuda:nccl" if own_gpu else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT, device_id=device)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.processes_per_device = 1 if own_gpu else local_size
        self.self_test(torch.device("cuda" if own_gpu else "cpu"))

    def self_test(self, device: torch.device) -> None:
        """Raise OptimFamilyError if the all-reduce gives a wrong sum Σ_r (r + 1) [1, …, 8]."""
        for dtype in (torch.float32, torch.float64):
            vector = torch.arange(1, 9, dtype=dtype, device=device)
            actual = self.all_reduce_vector((self.rank + 1) * vector)
            expected = self.size * (self.size + 1) // 2 * vector
            if not torch.equal(actual, expected):
                raise OptimFamilyError(
                    f"the all-reduce of {self.size} processes gave {actual.tolist()} where "
                    f"{expected.tolist()} is right ({dist.get_backend()}, {device}); nothing was computed"
                )

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Every size-th item: the numbers of items of two processes differ by at most one."""
        return items[self.rank :: self.size]

    def all_reduce(self, *tensors: Tensor) -> list[Tensor]:
        """Each tensor summed over the processes, in one all-reduce."""
        packed = flatten([*tensors, tensors[0].new_tensor(float(self._stop_request is not None))])
        try:
            dist.all_reduce(packed)
        except RuntimeError as error:
            raise self._lose(error) from error
        self.all_reduce_count, self.bytes_sent = self.all_reduce_count + 1, self.bytes_sent + packed.nbytes
        self._flags.append(packed[-1].clone())
        return [part.to(t.dtype) for part, t in zip(unflatten(packed[:-1], tensors), tensors, strict=True)]

    def broadcast(self, value: T) -> T:
        """The value of the main process."""
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
        """Raise Stopped if any process had a stop request at the last all-reduce that was read.

        All processes read after the same numbers of all-reduces, and stop before the same step or product.
        """
        try:
            stop.check()
        except Stopped as request:
            self._stop_request = request
        if self._flags and len(self._flags) >= STEPS_PER_READ[self._flags[-1].device.type]:
            self._any_stop_request |= bool(torch.stack([flag.double() for flag in self._flags]).any())
            self._flags = []
        if self._any_stop_request:
            raise self._stop_request or Stopped(
                f"stopped, because another process of this run was stopped; {_RESUME_HINT}"
            )

    def barrier(self) -> None:
        """Wait for the other processes, since torchrun kills them once the first one has ended."""
        if not self.lost:
            self.all_reduce_vector(torch.zeros(1))

    def _lose(self, error: RuntimeError) -> Stopped:
        self.lost = True
        return Stopped(
            f"another of the {self.size} processes of this run has ended or hangs ({one_line(error)}); "
            + _RESUME_HINT
        )


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """The processes that share this run, until the context ends; raises what `self_test` raises."""
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
