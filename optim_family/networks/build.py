"""From a model card to a network whose loss is scale-invariant, if the card can make it so.

Normalisation is frozen at γ = 1, β = 0 with an eps that vanishes, no bias is trained, the read-out is a fixed
random matrix, and nothing is random in a forward pass: the loss is a function of the weights alone.
"""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from typing import Any

import timm
import torch
from timm.layers import norm as timm_norm
from timm.layers.classifier import ClassifierHead
from timm.layers.drop import DropBlock2d, DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from optim_family.errors import UsageError, unknown
from optim_family.networks import builtin
from optim_family.networks.cards import Card, load
from optim_family.training.spec import Norm

# EvoNorm and FilterResponseNorm are one with their activation and stay as they are.
NORMS = (
    *(_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(timm_norm.RmsNorm, timm_norm.RmsNormFp32, timm_norm.RmsNorm2d, timm_norm.RmsNorm2dFp32),
    *(timm_norm.SimpleNorm, timm_norm.SimpleNormFp32, timm_norm.SimpleNorm2d, timm_norm.SimpleNorm2dFp32),
)
# eps = tiny^0.6 vanishes beside a variance; eps^{-3/2}, the second derivative of a constant unit, is finite.
EPS_POWER = 0.6


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


@contextmanager
def recomputing_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, forward passes in training mode average the statistics of their batches into the buffers.

    Evaluation mode then normalises with the mean over those batches, each with the same weight. The flags are
    restored at the end; the mode is the caller's. A network without BatchNorm passes through unchanged.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    kept = [(norm, norm.momentum, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.track_running_stats = None, True
            norm.reset_running_stats()
        yield
    finally:
        for norm, momentum, tracks in kept:
            norm.momentum, norm.track_running_stats = momentum, tracks


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


def _adapt(card: Card, network: Any, classes: int) -> None:
    """Stem, pools and head of the card; then what is done to every network."""
    if card.adapt.stem == "conv3x3":
        _small_stem(card, network)
    if card.adapt.head == "average":
        _average_head(card, network, classes)
    for module in network.modules():
        if isinstance(module, nn.MaxPool2d) and card.adapt.pool == "ceil":
            module.ceil_mode = True
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        if isinstance(module, DropPath | DropBlock2d):
            module.drop_prob = 0.0
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # its backward pass has no derivative
    _drop_biases(network)


def _small_stem(card: Card, network: nn.Module) -> None:
    """First convolution → 3×3/1, the only max-pool → nothing: a small image keeps its pixels."""
    convolution = next(((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)), None)
    if convolution is None:
        raise UsageError(f"{card.name} has no convolution; leave adapt.stem out of its card")
    name, old = convolution
    new = builtin.conv3x3(old.in_channels, old.out_channels)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(name, new)
    pools = [name for name, module in network.named_modules() if isinstance(module, nn.MaxPool2d)]
    if len(pools) == 1:
        network.set_submodule(pools[0], nn.Identity())


def _average_head(card: Card, network: Any, classes: int) -> None:
    """In place of timm's VGG head: mean over the image, one linear layer."""
    if not hasattr(network, "pre_logits"):
        raise UsageError(f"{card.name} has no head made for ImageNet; leave adapt.head out of its card")
    network.pre_logits = nn.Identity()
    network.head = ClassifierHead(network.num_features, classes)


def _drop_biases(network: nn.Module) -> None:
    """Layers lose their bias; any other is held at zero. Those of normalisation are `_normalise`'s."""
    for module in network.modules():
        if isinstance(module, NORMS):
            continue
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            module.register_parameter("bias", None)
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias"):
                nn.init.zeros_(parameter.requires_grad_(False))


def _normalise(network: nn.Module, norm: Norm, eps: float) -> None:
    """γ = 1 and β = 0, frozen or trained, in every normalisation; or none of them at all."""
    norms = [(name, module) for name, module in network.named_modules() if isinstance(module, NORMS)]
    if norm == "none":
        _remove(network, [name for name, _ in norms])
        return
    for _, module in norms:
        for key, parameter in module.named_parameters(recurse=False):
            nn.init.constant_(parameter.requires_grad_(norm == "affine"), float(key == "weight"))
        if norm == "frozen-affine":
            module.eps = eps
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False  # and keeps its buffers: see `build`


def _remove(network: Any, norms: list[str]) -> None:
    """Normalisations give way to the activation that timm builds into some of them."""
    for name in norms:
        network.set_submodule(name, getattr(network.get_submodule(name), "act", nn.Identity()))
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # no normalisation has made a copy to write into


def _freeze(card: Card, network: nn.Module) -> list[Tensor]:
    """Draw the matrices that the card freezes; their norm is set in the final dtype."""
    matrices: list[Tensor] = []
    patterns = card.adapt.freeze if card.adapt.freeze is not None else _classifiers(network)
    for pattern in patterns:
        matched = [p for name, p in network.named_parameters() if fnmatchcase(name, pattern)]
        if not matched:
            last = ", ".join([name for name, _ in network.named_parameters()][-3:])
            raise UsageError(f"{card.name} has no parameter {pattern!r} to freeze; its last ones are {last}")
        matrices += [p.requires_grad_(False) for p in matched if p.ndim > 1]
    for matrix in matrices:
        nn.init.normal_(matrix)
    return matrices


def _classifiers(network: Any) -> list[str]:
    """Patterns of the read-outs: timm's own name for them, `fc` in the networks of this package."""
    modules = network.pretrained_cfg["classifier"] if hasattr(network, "pretrained_cfg") else "fc"
    return [f"{module}.*" for module in ([modules] if isinstance(modules, str) else modules)]


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
