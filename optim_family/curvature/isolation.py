"""Evaluate the loss of a model as a fixed function of the weights, without side effects.

An evaluation restores buffers, gradients, flags, hooks, the attributes of each module, and the random streams
of torch, numpy and Python. If the forward pass changes weights, it raises an error.
"""

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar, final

import torch
from torch import Tensor, nn

from optim_family.curvature.module_state import (
    all_modules,
    no_global_hooks,
    parameters_of,
    restore_modules,
    restore_parameters,
)
from optim_family.curvature.random_streams import RandomStreams, random_lock

T = TypeVar("T")

# Frozen weights are compared if they are at most this multiple of the trained ones, the Lanczos basis' size.
COMPARED: Final = 30

_thread = threading.local()  # `inside`: an evaluation of this thread is under way
_locks: "weakref.WeakKeyDictionary[nn.Module, threading.RLock]" = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def unwrap_model(model: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and `torch.compile`.

    Raises:
        ValueError: its loss cannot be differentiated twice in the weights it holds; says what to do.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"{type(model).__name__} is TorchScript, which cannot be measured: measure it before scripting."
        )
    wrapped: Any = model
    while wrapped is not None:
        model = wrapped
        parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        wrapped = model._modules.get("module" if parallel else "_orig_mod")
    name = type(model).__name__
    if any(kind.__name__ in ("FullyShardedDataParallel", "FSDPModule") for kind in type(model).__mro__):
        raise ValueError(f"{name} is sharded over processes, so it cannot be measured: gather it first.")
    for parameter_name, p in model.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"the weight {parameter_name!r} has no shape yet: run the model on a batch first."
            )
        if p.requires_grad and p.is_complex():
            raise ValueError(
                f"the weight {parameter_name!r} is complex; a Hessian is of real weights: train its real and "
                "imaginary parts, joined by torch.complex in the forward pass."
            )
        if p.is_inference():
            raise ValueError(
                f"the weight {parameter_name!r} was made in inference mode, which has no gradients: make the "
                "model outside of torch.inference_mode()."
            )
    return model


def read_chunks(chunks: Iterable[T]) -> list[T]:
    """All chunks; restores the random streams: a DataLoader draws a number even without shuffling."""
    if isinstance(chunks, list | tuple):
        return [*chunks]
    with contextlib.nullcontext() if _is_inside() else random_lock.write():
        before = RandomStreams.now()
        try:
            return [*chunks]
        finally:
            before.restore()


def _is_inside() -> bool:
    return getattr(_thread, "inside", False)


@final
class Isolation:
    """Evaluates functions of one model, each from the same random streams.

    Remembers the initial streams, whether evaluations draw random numbers, and that the first one changed no
    weight. Evaluations without random numbers run in parallel threads. One with random numbers runs alone,
    since torch has one stream for all threads.
    """

    def __init__(self, model: nn.Module, loss_fn: Callable[..., Any] | None = None) -> None:
        self.model = model
        self.modules, self.compared = all_modules(model, loss_fn), False
        self.devices = tuple({p.device for p in model.parameters() if p.device.type == "cuda"})
        with contextlib.nullcontext() if _is_inside() else random_lock.read():
            self.seed, self.streams = torch.initial_seed(), RandomStreams.now(self.devices)
        self.draws = any("Dropout" in type(m).__name__ and m.training for m in self.modules)
        with _lock:
            self.lock = _locks.setdefault(model, threading.RLock())

    def run(self, work: Callable[[], T], index: int = 0) -> T:
        """The result of the work; if it draws random numbers for the first time, the work runs twice.

        Args:
            work: evaluates the model, and may differentiate what it evaluates.
            index: selects the random streams.

        Raises:
            ValueError: the first evaluation changes a weight, which is then restored.
        """
        if _is_inside():
            return work()
        with self.lock, self._surroundings():
            if not self.draws:
                with random_lock.read():
                    before = RandomStreams.now(self.devices)
                    try:
                        result = work()
                    except BaseException:
                        before.restore()
                        raise
                    if before == RandomStreams.now(self.devices):
                        return result
            else:
                before = None
            with random_lock.write():
                return self._run_seeded(work, index, before)

    def _copies(self) -> list[tuple[nn.Parameter, Tensor, Tensor]]:
        """Each weight, its tensor and a copy; without frozen ones if these are far more numbers."""
        parameters = [p for p in parameters_of(self.modules) if _has_bits(p)]
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        few = sum(p.numel() for p in parameters) <= COMPARED * trained
        return [(p, p.data, p.data.clone()) for p in parameters if p.requires_grad or few]

    def _require_same(self, copies: Sequence[tuple[nn.Parameter, Tensor, Tensor]]) -> None:
        changed = {id(p) for p, _, copy in copies if not torch.equal(_bits(p), _bits(copy))}
        for p, data, copy in copies:
            if id(p) in changed:
                data.copy_(copy)
        if changed:
            names = [name for name, p in self.model.named_parameters() if id(p) in changed] or ["of the loss"]
            raise ValueError(
                f"the forward pass of this {type(self.model).__name__} changes weights "
                f"({', '.join(names[:3])}), so that its loss is not a function of them: change them after "
                "the optimizer's step instead."
            )
        self.compared = True

    def _run_seeded(self, work: Callable[[], T], index: int, earlier: "RandomStreams | None") -> T:
        """Run with seeded streams; restore those before, or `earlier` if the work draws random numbers."""
        present = RandomStreams.now(self.devices)
        self.streams.restore()
        torch.default_generator.manual_seed((self.seed + index) % 2**63)
        for device in self.devices:  # torch.manual_seed would reseed the other devices for good
            torch.cuda.default_generators[device.index].manual_seed((self.seed + index) % 2**63)
        seeded = RandomStreams.now(self.devices)
        try:
            return work()
        finally:
            self.draws = self.draws or seeded != RandomStreams.now(self.devices)
            (earlier if earlier and self.draws else present).restore()

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """Without autocast, inference mode and hooks on gradients; restores the modules."""
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in {"cpu", *(p.device.type for p in self.model.parameters())}:
                stack.enter_context(torch.autocast(kind, enabled=False))
            stack.enter_context(no_global_hooks)
            stack.enter_context(restore_modules(self.modules))
            stack.enter_context(restore_parameters(parameters_of(self.modules)))
            if not self.compared:
                stack.callback(self._require_same, self._copies())
            _thread.inside = True
            stack.callback(setattr, _thread, "inside", False)
            yield


def _has_bits(p: nn.Parameter) -> bool:
    """Whether it is an ordinary tensor, whose numbers lie in memory."""
    return type(p.data) is Tensor and p.layout is torch.strided and not (p.is_meta or p.is_quantized)


def _bits(t: Tensor) -> Tensor:
    """Equal for equal numbers, NaN too."""
    return t.detach().contiguous().reshape(-1).view(torch.uint8)
