"""From a model card to a network whose loss is scale-invariant, if the card can make it so.

Normalisation is frozen at γ = 1, β = 0 with an eps that vanishes, no bias is trained, the read-out is a fixed
random matrix, and nothing is random in a forward pass: the loss is a function of the weights alone.
"""

import difflib
from contextlib import suppress
from typing import Any

import timm
import torch
from torch import nn

from optim_family.errors import UsageError, unknown
from optim_family.networks import builtin
from optim_family.networks.adapt import EPS_POWER, _adapt, _freeze, _normalise
from optim_family.networks.cards import Card, Norm, load


def build(
    model: str,
    *,
    classes: int,
    channels: int,
    size: tuple[int, int],
    norm: Norm = "frozen-affine",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """The adapted network of a card, in training mode on the CPU: [n, channels, *size] → [n, classes].

    Deterministic in `seed`; the global random state stays as it was. In training mode the network normalises
    with batch statistics and moves no buffer; in evaluation mode it uses the buffers.

    Args:
        model: a packaged card, the path of one, or `timm:NAME`.
        classes: number of outputs.
        channels: channels of an image.
        size: height and width of an image, in pixels.
        norm: `frozen-affine`: γ = 1, β = 0, eps vanishes; `affine`: γ and β trained from there, ordinary eps;
            `none`: no normalisation at all.
        seed: of the initial weights and the read-out, the same numbers in every dtype.
        dtype: of parameters and buffers.

    Raises:
        UsageError: no such model, a wrong card, or images that the network cannot take.
    """
    card = load(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _create(card, classes, channels, size)
        _adapt(card, network, classes)
        _normalise(network, norm, torch.finfo(dtype).tiny ** EPS_POWER)
        readouts = _freeze(card, network)
    _try(card, network, channels, size, classes)
    network.to(dtype).train()
    for matrix in readouts:
        # Features after BN and ReLU share a mean, which must not swamp the outputs.
        if matrix.ndim == 2 and matrix.shape[1] > 1:
            matrix.sub_(matrix.mean(1, keepdim=True))
        matrix.mul_(card.adapt.readout_norm / matrix.norm())
    return network


def _create(card: Card, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    try:
        if card.timm is None:
            return builtin.maker(card.builtin, card.plugin)(classes, channels, size, **card.kwargs)
        arguments = {"num_classes": classes, "in_chans": channels, **_image_size(card, size), **card.kwargs}
        return timm.create_model(_known(card), pretrained=False, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UsageError(
            f"{card.name} cannot be built for {size[0]}×{size[1]} images with {card.kwargs}: {_first(error)}"
        ) from error


def _known(card: Card) -> str:
    name = card.timm or ""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        raise UsageError(unknown("timm model", name, [*near, "… (timm.list_models() has them all)"]))
    return name


def _image_size(card: Card, size: tuple[int, int]) -> dict[str, Any]:
    """Transformers are built for one image size; convolutional networks take what comes."""
    config = timm.get_pretrained_cfg(_known(card))
    return {"img_size": size} if config is not None and config.fixed_input_size else {}


def _try(card: Card, network: nn.Module, channels: int, size: tuple[int, int], classes: int) -> None:
    """One forward pass, so that images which do not fit are refused here and not in the first step."""
    try:
        shape = _output(network, channels, size)
    except (RuntimeError, ValueError, AssertionError) as error:
        what = f"{card.name} cannot take {size[0]}×{size[1]} images"
        raise UsageError(f"{what}: {_first(error)}; {_way_out(network, channels)}") from error
    if shape != (1, classes):
        raise UsageError(f"{card.name} answers one image with {list(shape)} numbers, not [1, {classes}]")


def _way_out(network: nn.Module, channels: int) -> str:
    for side in (8, 16, 32, 64, 128, 256):
        with suppress(RuntimeError, ValueError, AssertionError):
            _output(network, channels, (side, side))
            return f"it takes {side}×{side} ones, or choose another model"
    return "choose larger images or another model"


def _output(network: nn.Module, channels: int, size: tuple[int, int]) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(network.eval()(torch.zeros(1, channels, *size)).shape)


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
