"""CUDA graphs of a card that does not exist: kernels are recorded, and replayed at the same addresses.

As on a card, a capture computes nothing: what it made holds NaN until the first replay, and tensors from
outside keep their numbers. A replay repeats the kernels on the memory of the capture, also if a tensor has
moved since. Inside a capture a wait of the host is refused, and so is a tensor that is made on the CPU.
"""

from contextlib import contextmanager

import torch

from tests.helpers.rehearsed_tensor import capturing, leaves


class Stream:
    """A stream of a card, which executes in the order of the program."""

    current = None

    def __init__(self, device=None):
        self.device = device

    def wait_stream(self, other):
        pass


@contextmanager
def stream(stream):
    """Make a stream the current one."""
    before, Stream.current = Stream.current, stream
    try:
        yield
    finally:
        Stream.current = before


class CUDAGraph:
    """What was captured; `replays` counts."""

    def __init__(self):
        self.calls, self.replays = None, 0

    def replay(self):
        assert self.calls is not None, "nothing was captured"
        self.replays += 1
        for func, args, kwargs, out in self.calls:
            if func._schema.is_mutable:
                func(*args, **kwargs)
            elif not any(value.alias_info for value in func._schema.returns):
                for old, new in zip(leaves(out), leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor):
                        old.copy_(new)


class graph:
    """Captures what is computed inside."""

    def __init__(self, cuda_graph, pool=None, stream=None, capture_error_mode="global"):
        assert stream is not None, "a capture needs the stream of its warm-up"
        self.cuda_graph, self.stream = cuda_graph, stream

    def __enter__(self):
        assert not capturing
        capturing.append(Capture())

    def __exit__(self, kind, error, trace):
        capture = capturing.pop()
        capture.undo()
        if kind is None:
            self.cuda_graph.calls = capture.calls


class Capture:
    """The kernels of a capture, the memory that it made, and the numbers of other memory before it."""

    def __init__(self):
        self.calls, self.made, self.before = [], {}, []

    def record(self, func, args, kwargs):
        """Compute, since later kernels need shapes; `undo` takes it back."""
        if func._schema.is_mutable:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                if argument.alias_info and argument.alias_info.is_write:
                    self._keep(leaves(value if isinstance(value, list) else [value]))
        out = func(*args, **kwargs)
        if not any(value.alias_info for value in func._schema.returns) and not func._schema.is_mutable:
            self.made |= {
                t.untyped_storage().data_ptr(): t for t in leaves(out) if isinstance(t, torch.Tensor)
            }
        self.calls.append((func, args, kwargs, out))
        return out

    def _keep(self, tensors):
        outside = [t for t in tensors if t.untyped_storage().data_ptr() not in self.made]
        self.before += [(t, t.clone()) for t in outside]

    def undo(self):
        """The numbers are those before the capture, and NaN where it made memory."""
        for tensor, numbers in reversed(self.before):
            tensor.copy_(numbers)
        for tensor in self.made.values():
            tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
