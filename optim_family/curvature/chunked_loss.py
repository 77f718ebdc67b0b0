"""The loss as a sum over chunks of the data, each a closure that returns its share with a graph."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

ChunkLoss = Callable[[], Tensor]


def chunk_losses(
    model: nn.Module, loss_fn: Callable[[Any, Any], Tensor], chunks: Iterable[tuple[Any, Any]]
) -> list[ChunkLoss]:
    """Closures L_c = (n_c / n) · loss_fn(model(x_c), y_c) that leave the model as it is.

    The model runs in its present mode on copies of its buffers, and random layers draw the same
    numbers every time, so that a closure is a fixed function of the weights. A tuple or list x is given as
    positional arguments, a dictionary as keywords; n_c is the length of the first tensor of y.

    Raises:
        ValueError: there are no chunks, or no examples in them; later, a loss that is not one number.
    """
    with torch.random.fork_rng(devices=[]):  # a DataLoader draws a number, even without shuffling
        data = list(chunks)
    if not data:
        raise ValueError("there is nothing to measure on: `chunks` gave no (x, y) pair.")
    counts = [_count(y) for _, y in data]
    if not sum(counts):
        raise ValueError("there is nothing to measure on: the chunks hold no examples.")
    seed = torch.initial_seed()

    def closure(index: int) -> Tensor:
        x, y = data[index]
        with torch.random.fork_rng(devices=_cuda_devices(model)):
            torch.default_generator.manual_seed(seed + index)
            for device in _cuda_devices(model):  # torch.manual_seed would reseed the other devices for good
                torch.cuda.default_generators[device.index].manual_seed(seed + index)
            buffers = {name: b.clone() for name, b in model.named_buffers()}
            args, kwargs = _arguments(x)
            loss = loss_fn(functional_call(model, buffers, args, kwargs), y)
        if loss.numel() != 1:
            raise ValueError(
                f"loss_fn must give the mean loss of a chunk, one number; got {list(loss.shape)}."
            )
        return counts[index] / sum(counts) * loss

    return [partial(closure, index) for index in range(len(data))]


def _arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a model is called with."""
    if isinstance(x, Mapping):
        return (), dict(x)
    return (tuple(x) if isinstance(x, tuple | list) else (x,)), {}


def _count(y: Any) -> int:
    """Examples of a chunk."""
    if isinstance(y, Mapping):
        y = next(iter(y.values()))
    return len(y[0] if isinstance(y, tuple | list) and isinstance(y[0], Tensor) else y)


def _cuda_devices(model: nn.Module) -> list[torch.device]:
    return list({p.device for p in model.parameters() if p.device.type == "cuda"})
