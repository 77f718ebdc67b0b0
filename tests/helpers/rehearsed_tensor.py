"""Tensors that lie on a CUDA card as far as Python can see, and hold their numbers on the CPU.

A `CardTensor` belongs to torch's PrivateUse1 backend, which may be implemented in Python: autograd treats it
as a tensor of an accelerator, and every kernel arrives in `launch`. There the card of each argument is
compared, what would make the host wait is noted, and the kernel of the CPU computes the numbers. Values thus
equal those of the CPU bitwise, and a mistake about devices raises the error that CUDA raises.
"""

import functools
import re
import sys
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from tests.helpers import ROOT

aten = torch.ops.aten
CUDA_NAME = re.compile(r"cuda(:\d+)?")
BACKEND = "rehearsal"  # the name that C++ prints for the device
PACKAGE = str(ROOT / "optim_family")

# Kernels that read a number on the host, as CUDA implements them: the size of a result, or a status.
READS = {
    *("_local_scalar_dense", "equal", "is_nonzero", "allclose", "nonzero", "masked_select", "_unique2"),
    *("unique_dim", "unique_consecutive", "repeat_interleave", "bincount", "_linalg_eigh", "_linalg_svd"),
    *("linalg_inv_ex", "_linalg_check_errors", "tolist"),
}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
# Backward kernels that CUDA has with atomic additions only, from `alertNotDeterministic` in torch's sources.
NOT_DETERMINISTIC = {
    *("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward"),
    *("avg_pool3d_backward", "max_pool3d_with_indices_backward", "reflection_pad1d_backward"),
    *("reflection_pad2d_backward", "replication_pad2d_backward", "upsample_bilinear2d_backward"),
    *("upsample_bicubic2d_backward", "grid_sampler_2d_backward", "_ctc_loss_backward", "cumsum"),
}


class Waits:
    """What made the host wait for the card: a count for each pair of a reason and a line of the package."""

    def __init__(self):
        self.sites = Counter()

    @property
    def total(self):
        return self.sites.total()

    def __str__(self):
        rows = (f"{count:4d}  {reason}, {line}" for (reason, line), count in self.sites.most_common())
        return "\n".join(rows) or "   0"


_counting = []  # the `Waits` of each `count_waits` that is open
capturing = []  # the capture of a CUDA graph that is under way: `rehearsed_graphs.Capture`


@contextmanager
def count_waits():
    """The waits of the host inside, as `Waits`."""
    _counting.append(Waits())
    try:
        yield _counting[-1]
    finally:
        _counting.pop()


def note_wait(reason):
    """One wait, at the innermost line of the package that is running; refused inside a capture."""
    if capturing:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {reason}")
    frame, line = sys._getframe(1), "outside of the package"
    while frame and _counting:
        if (path := frame.f_code.co_filename).startswith(PACKAGE):
            line = f"{Path(path).relative_to(PACKAGE)}:{frame.f_lineno}"
            break
        frame = frame.f_back
    for waits in _counting:
        waits.sites[reason, line] += 1


def card_of(device):
    """The index of the card that a device or its name means; None for the CPU, or for no device."""
    if device is None:
        return None
    device = torch.device(device)
    return (device.index or 0) if device.type in ("cuda", BACKEND) else None


class CardTensor(torch.Tensor):
    """A tensor on a card: `numbers` on the CPU, `card` the index of the device."""

    @staticmethod
    def __new__(cls, numbers, card=0):
        t = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=torch.device(BACKEND, 0),
        )
        t.numbers, t.card = numbers, card
        return t

    device = property(lambda self: torch.device("cuda", self.card))
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, other):
        if not isinstance(other, CardTensor):
            raise RuntimeError("Attempted to call `variable.set_data(tensor)` with another device")
        with torch._C.DisableTorchFunctionSubclass():
            torch.Tensor.data.__set__(self, other)
        self.numbers, self.card = other.numbers, other.card

    def __deepcopy__(self, memo):
        copied = CardTensor(self.numbers.clone(), self.card)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        elif self.requires_grad:
            copied.requires_grad_()
        return memo.setdefault(id(self), copied)

    def untyped_storage(self):
        return self.numbers.untyped_storage()

    def data_ptr(self):
        return self.numbers.data_ptr()

    def tolist(self):
        note_wait("numbers read on the host")
        return self.numbers.tolist()

    def numpy(self, **_):
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def __repr__(self, **_):
        return f"{self.numbers!r} on {self.device}"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        args, kwargs = for_backend(args), for_backend(kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.Tensor.new_tensor:
                card = card_of(kwargs.pop("device", args[0].device))
                kwargs.setdefault("dtype", args[0].dtype)
                made = torch.tensor(args[1], **kwargs)
                return made if card is None else made.to(torch.device(BACKEND, card))
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return launch(func, args, kwargs or {})


def leaves(tree):
    """The values in tuples, lists and dicts, in order."""
    if isinstance(tree, tuple | list):
        return [leaf for part in tree for leaf in leaves(part)]
    return [leaf for part in tree.values() for leaf in leaves(part)] if isinstance(tree, dict) else [tree]


def mapped(tree, change):
    """The same tree with changed leaves; torch's own pytree is several times slower for so small trees."""
    if type(tree) in (tuple, list):
        return type(tree)([mapped(part, change) for part in tree])
    return {k: mapped(part, change) for k, part in tree.items()} if type(tree) is dict else change(tree)


def for_backend(tree):
    """The same arguments, where each `cuda` is the device that C++ knows."""

    def one(value):
        if isinstance(value, torch.device) or (isinstance(value, str) and CUDA_NAME.fullmatch(value)):
            card = card_of(value)
            return value if card is None else torch.device(BACKEND, card)
        return value

    return mapped(tree, one)


def launch(func, args, kwargs):
    """Run one kernel of torch; its result lies on the card of its arguments."""
    tensors = [t for t in leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    cards = {t.card for t in tensors if isinstance(t, CardTensor)}
    if func in (aten.copy_.default, aten._to_copy.default):
        return _copy(func, args, kwargs)
    target = card_of(kwargs.get("device"))
    if not cards and target is None:
        if capturing and tensors == []:
            raise RuntimeError(f"a tensor of the CPU is made inside a capture ({func})")
        return func(*args, **kwargs)
    _require_one_device(func, tensors, cards)
    _note_reads(func, args)
    _require_cuda_kernel(func, args)
    card = cards.pop() if cards else target
    inner = {key: value for key, value in kwargs.items() if key != "device"}
    if "device" in kwargs:
        inner["device"] = "cpu"
    numbers, options = mapped((args, inner), lambda t: t.numbers if isinstance(t, CardTensor) else t)
    if torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None:
        generator = torch.cuda.default_generators[card]
        generator.manual_seed(generator.initial_seed() + 1)  # its state shows that numbers were drawn
    out = execute(func, numbers, options)
    if target is None and kwargs.get("device") is not None:  # made on the CPU, like a tensor of a card
        return out
    out = mapped(out, lambda t: CardTensor(t, card) if isinstance(t, torch.Tensor) else t)
    return return_and_correct_aliasing(func, args, kwargs, out) if tensors and _aliases(func) else out


def execute(func, args, kwargs):
    """The kernel of the CPU; a capture under way records it."""
    return capturing[-1].record(func, args, kwargs) if capturing else func(*args, **kwargs)


@functools.cache
def _aliases(func):
    """Whether a result of the kernel is, or is a view of, an argument."""
    return any(value.alias_info for value in func._schema.returns)


def _copy(func, args, kwargs):
    """A copy within or between devices; the host waits for one that is not asynchronous in pinned memory."""
    source = args[1] if func is aten.copy_.default else args[0]
    before = source.card if isinstance(source, CardTensor) else None
    numbers = source if before is None else source.numbers
    if func is aten.copy_.default:
        after = args[0].card if isinstance(args[0], CardTensor) else None
    else:
        after = before if kwargs.get("device") is None else card_of(kwargs["device"])
    asynchronous = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
    if (before is None) != (after is None) and not (asynchronous and getattr(source, "pinned", False)):
        note_wait("copy to the host" if after is None else "copy to the card")
    if func is aten.copy_.default:
        execute(func, (args[0] if after is None else args[0].numbers, numbers), {})
        return args[0]
    inner = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking")}
    copied = execute(func, (numbers,), inner)
    return copied if after is None else CardTensor(copied, after)


def _require_one_device(func, tensors, cards):
    """Refuse a tensor of the CPU beside one of a card, unless it is one number or an index, and two cards."""
    host = [t for t in tensors if not isinstance(t, CardTensor)]
    foreign = [t for t in host if t.ndim] if torch.Tag.pointwise in func.tags or _foreach(func) else host
    if cards and host and func in INDEXED:
        return note_wait("index copied to the card")
    if len(cards) > 1 or (cards and foreign):
        places = [f"cuda:{card}" for card in sorted(cards)] + ["cpu"] * bool(foreign)
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{places[0]} and {places[1]}! ({func})"
        )


def _foreach(func):
    return func._schema.name.startswith("aten::_foreach")


def _note_reads(func, args):
    name = func._schema.name.removeprefix("aten::")
    masks = [t for t in leaves(args[1:2]) if isinstance(t, torch.Tensor)]
    if name in READS:
        note_wait("numbers read on the host")
    elif func in INDEXED and any(t.dtype in (torch.bool, torch.uint8) for t in masks):
        note_wait("mask counted on the host")


def _require_cuda_kernel(func, args):
    """Refuse what CUDA's kernels refuse and those of the CPU take."""
    name = func._schema.name.removeprefix("aten::")
    if name == "native_batch_norm_backward" and args[2] is None and any(args[9][1:]):
        raise RuntimeError("empty_like of an undefined tensor: the kernel makes dγ and dβ like the weight")
    if name in NOT_DETERMINISTIC and torch.are_deterministic_algorithms_enabled():
        text = f"{name}_cuda does not have a deterministic implementation"
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError(text)
        warnings.warn(text, stacklevel=2)


class Launches(TorchDispatchMode):
    """Sends kernels without an argument on a card to `launch` as well: new tensors, and copies to a card."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return launch(func, args, kwargs or {})
