"""Build the network of a model card, adapted, and check that it accepts the images."""

import difflib
from contextlib import suppress

import timm
import torch
from torch import nn

from optim_family.errors import UsageError, one_line, unknown
from optim_family.networks import builtin
from optim_family.networks.adapt import adapt, scale_frozen
from optim_family.networks.cards import Card, Norm, load

# What networks raise for images of an unsuitable size.
_REJECTIONS = (RuntimeError, ValueError, AssertionError)


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
    """Build the adapted network of a card, in training mode on the CPU: [n, channels, *size] → [n, classes].

    Deterministic in `seed`; the global random state stays unchanged. In training mode the network normalises
    with batch statistics and updates no buffer; in evaluation mode it uses the buffers.

    Args:
        model: a packaged card, the path of one, or `timm:NAME`.
        classes: number of outputs.
        channels: channels of an image.
        size: height and width of an image, in pixels.
        norm: `frozen-affine`: γ = 1, β = 0, eps vanishes; `affine`: γ and β trained from there, ordinary eps;
            `none`: no normalisation at all.
        seed: of the initial weights and the classifier, the same numbers in every dtype.
        dtype: of parameters and buffers.

    Raises:
        UsageError: no such model, an invalid card, or images that the network cannot process.
    """
    card = load(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _create(card, classes, channels, size)
        frozen = adapt(card, network, classes, norm, dtype)
    _check_forward(card, network, channels, size, classes)
    network.to(dtype).train()
    scale_frozen(card, frozen)
    return network


def _create(card: Card, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    try:
        if card.builtin:
            return builtin.BUILTIN[card.builtin](classes, channels, size, **card.kwargs)
        if card.plugin:
            return builtin.plugin_network(card.plugin, classes, channels, size, **card.kwargs)
        name = _timm_name(card)
        config = timm.get_pretrained_cfg(name)
        # Transformers are built for one image size.
        sized = {"img_size": size} if config is not None and config.fixed_input_size else {}
        arguments = {"num_classes": classes, "in_chans": channels, **sized, **card.kwargs}
        return timm.create_model(name, pretrained=False, **arguments)
    except (TypeError, *_REJECTIONS) as error:
        problem = f"{card.name} cannot be built for {size[0]}×{size[1]} images with {card.kwargs}"
        raise UsageError(f"{problem}: {one_line(error)}") from error


def _timm_name(card: Card) -> str:
    name = card.timm or ""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        raise UsageError(unknown("timm model", name, [*near, "… (timm.list_models() has them all)"]))
    return name


def _check_forward(
    card: Card, network: nn.Module, channels: int, size: tuple[int, int], classes: int
) -> None:
    """Run one forward pass, so that unsuitable images are rejected here and not in the first step."""
    try:
        shape = _output_shape(network, channels, size)
    except _REJECTIONS as error:
        problem = f"{card.name} cannot process {size[0]}×{size[1]} images"
        raise UsageError(f"{problem}: {one_line(error)}; {_working_size(network, channels)}") from error
    if shape != (1, classes):
        raise UsageError(f"{card.name} maps one image to outputs of shape {list(shape)}, not [1, {classes}]")


def _working_size(network: nn.Module, channels: int) -> str:
    for side in (8, 16, 32, 64, 128, 256):
        with suppress(*_REJECTIONS):
            _output_shape(network, channels, (side, side))
            return f"it works with {side}×{side} images; or choose another model"
    return "choose larger images or another model"


def _output_shape(network: nn.Module, channels: int, size: tuple[int, int]) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(network.eval()(torch.zeros(1, channels, *size)).shape)
