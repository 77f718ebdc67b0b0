"""`torch.cuda` of a machine with cards that do not exist, for tests of the code that a GPU would run.

`install()` registers the backend, before the first backward pass of a process: torch starts the threads of
its devices once. Inside `rehearsed_cuda()` Python sees CUDA: `tensor.to("cuda")` gives a `CardTensor`,
generators belong to a device, `torch.cuda` answers for the cards. What this cannot show: kernels of CUDA and
cuDNN and their rounding, streams, memory, NCCL, and speed. It uses private functions of torch (2.15).
"""

import sys
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tests.helpers import rehearsed_graphs
from tests.helpers.rehearsed_tensor import (
    BACKEND,
    CardTensor,
    Launches,
    card_of,
    for_backend,
    leaves,
    note_wait,
)

_HostGenerator = torch.Generator
# Which cards were asked for their memory, and how batch normalisation was called in training mode.
asked_cards, training_norms = [], []


def install():
    """Make this process able to rehearse; it cannot be undone, and a second call does nothing."""
    if torch._C._get_privateuse1_backend_name() == BACKEND:
        return
    _setup_privateuseone_for_python_backend(BACKEND)
    # torch's optimizers use foreach kernels for these types on a card.
    sys.modules["torch.optim.optimizer"]._foreach_supported_types.append(CardTensor)


class Generator(_HostGenerator):
    """A generator that knows the device it was made for; its numbers are those of the CPU's generator."""

    def __new__(cls, device="cpu"):
        made = _HostGenerator.__new__(cls)
        made.card = card_of(device)
        return made

    def __init__(self, device="cpu"):
        pass

    @property
    def device(self):
        return torch.device("cpu") if self.card is None else torch.device("cuda", self.card)


class PythonSide(TorchFunctionMode):
    """Translates the names of devices, and checks what C++ would check or abort on."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        if func is torch.Tensor.pin_memory:
            return _pinned(args[0])
        if func is torch.Tensor.cuda:
            place = args[1] if len(args) > 1 else kwargs.get("device")
            return args[0].to(torch.device(BACKEND, place if isinstance(place, int) else card_of(place) or 0))
        if func is torch.batch_norm and args[5] and isinstance(args[0], CardTensor):
            training_norms.append(_batch_norm_library(*args, **kwargs))
        if func in (torch.autograd.grad, torch.autograd.backward):
            _require_seeds(*args, **kwargs)
        _require_generator(args, kwargs)
        args, kwargs = for_backend(args), for_backend(kwargs)
        if func in (torch.tensor, torch.as_tensor) and card_of(kwargs.get("device")) is not None:
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        return func(*args, **kwargs)


def _pinned(tensor):
    if isinstance(tensor, CardTensor):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    copied = tensor.clone()
    copied.pinned = True
    return copied


def _batch_norm_library(input, weight, bias, mean, var, training, momentum, eps, cudnn_enabled):
    """Which library torch would take: cuDNN with weight and bias, unless it is disabled."""
    takes = cudnn_enabled and torch.backends.cudnn.enabled and input.ndim > 2
    return "cudnn" if takes and weight is not None and bias is not None else "native"


def _require_seeds(outputs, inputs=None, seeds=None, *_, grad_outputs=None, grad_tensors=None, **__):
    """Refuse gradients of outputs on another device."""
    on_card = any(isinstance(t, CardTensor) for t in leaves((outputs, inputs)))
    for seed in leaves((seeds, grad_outputs, grad_tensors)):
        if isinstance(seed, torch.Tensor) and seed.ndim and isinstance(seed, CardTensor) != on_card:
            raise RuntimeError(
                f"Function returned an invalid gradient: expected device cuda:0, got {seed.device}"
            )


def _require_generator(args, kwargs):
    """Refuse a generator of another device than the one where the numbers are drawn."""
    generator = kwargs.get("generator")
    if generator is None:
        return
    cards = [t.card for t in leaves(args) if isinstance(t, CardTensor)]
    drawn = cards[0] if cards else card_of(kwargs.get("device"))
    if getattr(generator, "card", None) != drawn:
        expected = "cpu" if drawn is None else "cuda"
        raise RuntimeError(
            f"Expected a '{expected}' device type for generator but found '{generator.device}'"
        )


def _answers(cards):
    """The functions of `torch.cuda` that the package, torch's optimizers and timm call."""
    generators = tuple(Generator(f"cuda:{card}") for card in range(cards))

    def generator_of(device):
        return generators[0 if device in (None, "cuda") else card_of(device)]

    def memory_of(device=None):
        card = device if isinstance(device, int) else card_of(device)
        asked_cards.append(card)
        return 2 ** (20 + (card or 0))

    properties = SimpleNamespace(
        name="rehearsed GPU", major=9, minor=0, total_memory=2**34, L2_cache_size=2**25
    )
    return {
        "is_available": lambda: True,
        "device_count": lambda: cards,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "_lazy_init": lambda: None,
        "get_device_name": lambda device=None: properties.name,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: (9, 0),
        "is_current_stream_capturing": lambda: False,
        "mem_get_info": lambda device=None: (2**33, 2**34),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": memory_of,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: note_wait("synchronize"),
        "default_generators": generators,
        "Stream": rehearsed_graphs.Stream,
        "current_stream": rehearsed_graphs.Stream,
        "stream": rehearsed_graphs.stream,
        "CUDAGraph": rehearsed_graphs.CUDAGraph,
        "graph": rehearsed_graphs.graph,
        "get_rng_state": lambda device=None: generator_of(device).get_state(),
        "set_rng_state": lambda state, device=None: generator_of(device).set_state(state),
    }


@contextmanager
def rehearsed_cuda(cards=1):
    """Inside, this machine has so many CUDA cards."""
    asked_cards.clear()
    training_norms.clear()
    with ExitStack() as stack:
        for name, answer in _answers(cards).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch, "Generator", Generator))
        accelerator = torch.device("cuda")
        stack.enter_context(
            mock.patch.object(
                torch.accelerator, "current_accelerator", lambda check_available=False: accelerator
            )
        )
        stack.enter_context(Launches())
        stack.enter_context(PythonSide())
        yield
