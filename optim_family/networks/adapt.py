"""Adapt a network so that its loss is scale-invariant: stem, pools, head, biases, normalisation.

Normalisation has γ = 1, β = 0 and an eps that vanishes, no bias is trained, dropout is off, and the
classifier is a fixed random matrix: the loss is a function of the weights alone.
"""

from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.layers import norm as timm_norm
from timm.layers.classifier import ClassifierHead
from timm.layers.drop import DropBlock2d, DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from optim_family.errors import UsageError
from optim_family.networks import builtin
from optim_family.networks.cards import Card, Norm

# EvoNorm and FilterResponseNorm contain their activation and stay as they are.
NORMS = (
    *(_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(timm_norm.RmsNorm, timm_norm.RmsNormFp32, timm_norm.RmsNorm2d, timm_norm.RmsNorm2dFp32),
    *(timm_norm.SimpleNorm, timm_norm.SimpleNormFp32, timm_norm.SimpleNorm2d, timm_norm.SimpleNorm2dFp32),
)
# eps = tiny^0.6 vanishes next to a variance; eps^{-3/2}, the second derivative of a constant unit, is finite.
_EPS_POWER = 0.6


def adapt(card: Card, network: nn.Module, classes: int, norm: Norm, dtype: torch.dtype) -> list[Tensor]:
    """Adapt a network in place, in the order of its card.

    Args:
        card: what to change.
        network: as its constructor returned it.
        classes: number of outputs.
        norm: treatment of the normalisation layers, as for `build`.
        dtype: in which the network will run; the eps of normalisation depends on it.

    Returns:
        The frozen matrices, for `scale_frozen` to scale in the final dtype.

    Raises:
        UsageError: the network has no part of the kind that the card changes.
    """
    _change_layers(card, network, classes)
    _drop_biases(network)
    _set_normalisation(network, norm, torch.finfo(dtype).tiny ** _EPS_POWER)
    return _freeze(card, network)


@torch.no_grad()
def scale_frozen(card: Card, matrices: list[Tensor]) -> None:
    """Centre the rows of each frozen matrix, and scale it to the Frobenius norm of the card."""
    for matrix in matrices:
        # Features after BN and ReLU share a mean, which must not swamp the outputs.
        if matrix.ndim == 2 and matrix.shape[1] > 1:
            matrix.sub_(matrix.mean(1, keepdim=True))
        matrix.mul_(card.adapt.readout_norm / matrix.norm())


def _change_layers(card: Card, network: Any, classes: int) -> None:
    """Stem, head and pools of the card; dropout off in every network."""
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


def _small_stem(card: Card, network: nn.Module) -> None:
    """First convolution → 3×3/1, the only max-pool → identity: a small image keeps its resolution."""
    first = next(((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise UsageError(f"{card.name} has no convolution; leave adapt.stem out of its card")
    name, old = first
    new = builtin.conv3x3(old.in_channels, old.out_channels)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(name, new)
    pools = [name for name, module in network.named_modules() if isinstance(module, nn.MaxPool2d)]
    if len(pools) == 1:
        network.set_submodule(pools[0], nn.Identity())


def _average_head(card: Card, network: Any, classes: int) -> None:
    """Replace timm's VGG head by the mean over the image and one linear layer."""
    if not hasattr(network, "pre_logits"):
        raise UsageError(f"{card.name} has no VGG head; leave adapt.head out of its card")
    network.pre_logits = nn.Identity()
    network.head = ClassifierHead(network.num_features, classes)


def _drop_biases(network: nn.Module) -> None:
    """Remove biases of layers; freeze others at zero. `_set_normalisation` treats those of normalisation."""
    for module in network.modules():
        if isinstance(module, NORMS):
            continue
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            module.register_parameter("bias", None)
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias"):
                nn.init.zeros_(parameter.requires_grad_(False))


def _set_normalisation(network: nn.Module, norm: Norm, eps: float) -> None:
    """Set γ = 1 and β = 0, frozen or trained, in every normalisation layer; or remove all of them."""
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
            module.track_running_stats = False  # its buffers stay: evaluation mode uses them


def _remove(network: Any, norms: list[str]) -> None:
    """Replace normalisation layers by the activation that timm builds into some of them."""
    for name in norms:
        network.set_submodule(name, getattr(network.get_submodule(name), "act", nn.Identity()))
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # without normalisation no copy is left to overwrite


def _freeze(card: Card, network: nn.Module) -> list[Tensor]:
    """Freeze the matrices that the card names, at random values; `scale_frozen` sets their norm."""
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
    """Patterns of the classifiers: timm's name for them, `fc` in the networks of this package."""
    names = network.pretrained_cfg["classifier"] if hasattr(network, "pretrained_cfg") else "fc"
    return [f"{name}.*" for name in ([names] if isinstance(names, str) else names)]
