"""The gradient of a chunk's loss as a CUDA graph: the host launches one graph in place of every kernel.

A graph repeats its kernels at the addresses of its capture. Only forward and backward pass are captured, at
weights that the optimizer changes in place, with inputs into which each chunk is copied. The update rule, the
learning rate, the choice of the mini-batch and the sum over chunks stay outside: none of them can be stale.

A graph is captured again where the network has other tensors or settings. Gradients are computed kernel by
kernel again, for good, if the loss draws random numbers or changes buffers, if an operation cannot be
captured, or if a replayed gradient differs in one bit from the computed one. The first replays are compared,
at other weights than those of the capture, and later one at every record.

Source: "CUDA Graphs", in the notes on CUDA semantics of the documentation of PyTorch.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from optim_family.errors import one_line

Example = Callable[[], tuple[Tensor, Tensor]]  # inputs and labels of a chunk, made when they are needed

WARM_UPS: Final = 3  # gradients on the stream of the capture before it: libraries allocate in the first
MOST_CAPTURES: Final = 3
COMPARED: Final = 3  # replays after a capture; with one, weights that move after their update would pass


@final
@dataclass(frozen=True)
class _Capture:
    """A graph, the tensors that it reads and writes, and the conditions under which it is valid."""

    graph: Any
    inputs: tuple[Tensor, Tensor]
    loss: Tensor
    gradients: tuple[Tensor | None, ...]
    conditions: list[object]


@final
class GradientReplay:
    """Replays ∇L_c; remembers the graph, the last step that was compared, and why it has stopped.

    Args:
        model: the network.
        tensors: the trained tensors.
        loss: the share of a chunk in the loss, a scalar, of its inputs and labels.

    Attributes:
        state: `on`, or since when and why gradients are computed kernel by kernel; for provenance.json.
        on_stop: called with one line when `state` changes.
    """

    def __init__(
        self, model: nn.Module, tensors: Sequence[Tensor], loss: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        self.model, self.tensors, self.loss = model, tuple(tensors), loss
        self.state = "on"
        self.on_stop: Callable[[str], None] = print
        self._settings = [d for m in model.modules() for d in (vars(m), m._parameters, m._buffers)]
        self._capture: _Capture | None = None
        self._captures, self._replays, self._compared = 0, 0, 0

    def __call__(
        self, step: int, examples: Sequence[Example], compute: Callable[[], Tensor], compare: bool
    ) -> Tensor:
        """Put the gradient into `.grad`; returns the loss, a scalar.

        Args:
            step: its number, for messages.
            examples: the chunks of the step.
            compute: does the same kernel by kernel; it clears `.grad` first.
            compare: compute the gradient too, and stop for good if a bit differs.
        """
        if self.state != "on":
            return compute()
        if self._capture is None or self._capture.conditions != self._conditions():
            return self._compute_and_capture(step, examples[0], compute)
        total = self._replay(self._capture, examples)
        if total is None:
            return compute()
        self._replays += 1
        if compare or self._replays <= COMPARED:
            replayed = [total, *(tensor.grad for tensor in self.tensors)]
            total = compute()
            if _differ(replayed, [total, *(tensor.grad for tensor in self.tensors)]):
                used = f"; steps after {self._compared} may have used such a gradient"
                used *= step > self._compared + 1
                self._stop(step, f"the replayed gradient differs from the computed one{used}")
            self._compared = step
        return total

    def _stop(self, step: int, reason: str) -> None:
        self.state, self._capture = f"off since step {step}: {reason}", None
        self.on_stop(f"CUDA graphs are {self.state}")

    def _compute_and_capture(self, step: int, example: Example, compute: Callable[[], Tensor]) -> Tensor:
        """The loss of `compute`; captures a graph for the next steps, if the computation permits it."""
        self._capture, self._captures = None, self._captures + 1
        self._replays, self._compared = 0, step
        before = self._side_effects()
        total = compute()
        if before != self._side_effects():
            self._stop(step, "the loss draws random numbers or changes buffers of the network")
        elif self._captures > MOST_CAPTURES:
            self._stop(step, "the tensors or the settings of the network change again and again")
        else:
            try:
                self._capture = self._record(example)
            except RuntimeError as error:
                self._stop(step, f"the gradient cannot be captured ({one_line(error)})")
        return total

    def _record(self, example: Example) -> _Capture:
        """Capture the gradient of one chunk, with the chunk in the inputs of the graph."""
        x, y = (
            torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).copy_(t)
            for t in example()
        )

        def work() -> tuple[Tensor, tuple[Tensor | None, ...]]:
            loss = self.loss(x, y)
            return loss.detach(), torch.autograd.grad(loss, self.tensors, allow_unused=True)

        conditions, here = self._conditions(), torch.cuda.current_stream(x.device)
        make_stream: Any = torch.cuda.Stream
        stream = make_stream(x.device)  # of the warm-up too: some libraries prepare each stream
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                work()
        here.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            loss, gradients = work()
        return _Capture(graph, (x, y), loss, gradients, conditions)

    def _replay(self, capture: _Capture, examples: Sequence[Example]) -> Tensor | None:
        """The sum of the losses of all chunks, and that of their gradients in `.grad`.

        The order of the sums is that of the eager computation. None if a chunk does not fit the graph.
        """
        total = torch.zeros_like(capture.loss)
        written = [(t, g) for t, g in zip(self.tensors, capture.gradients, strict=True) if g is not None]
        gradients = [gradient for _, gradient in written]  # the next replay overwrites them
        sums = [torch.empty_like(tensor) for tensor, _ in written]
        for index, example in enumerate(examples):
            for own, new in zip(capture.inputs, example(), strict=True):
                if own.shape != new.shape or own.stride() != new.stride():
                    return None
                own.copy_(new)
            capture.graph.replay()
            total += capture.loss
            (torch._foreach_add_ if index else torch._foreach_copy_)(sums, gradients)
        for tensor in self.tensors:
            tensor.grad = None
        for (tensor, _), gradient in zip(written, sums, strict=True):
            tensor.grad = gradient
        return total

    def _conditions(self) -> list[object]:
        """What a graph depends on beyond its inputs: the places of tensors, and the settings of layers."""
        backends: Any = torch.backends
        values = [value for settings in self._settings for value in settings.values()]
        return [
            backends.cuda.matmul.fp32_precision,
            backends.cudnn.conv.fp32_precision,
            *((v.data_ptr(), v.requires_grad) for v in values if isinstance(v, Tensor)),
            *(v for v in values if isinstance(v, bool | int | float | str)),
        ]

    def _side_effects(self) -> list[object]:
        """What a gradient changes if it draws random numbers or updates buffers."""
        states = torch.get_rng_state(), torch.cuda.get_rng_state(self.tensors[0].device)
        versions = [buffer._version for buffer in self.model.buffers()]
        return [*(state.numpy().tobytes() for state in states), random.getstate(), versions]


def _differ(some: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> bool:
    """Whether a bit differs between two lists of tensors; None differs from every tensor."""
    pairs = list(zip(some, others, strict=True))
    if any((a is None) != (b is None) for a, b in pairs):
        return True
    bits = (
        (a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
        for a, b in pairs
        if a is not None and b is not None
    )
    return bool(torch.stack([(a != b).any() for a, b in bits]).any())  # the host waits here
