"""What is done to a network to make its loss scale-invariant, in the order of the card."""

from fnmatch import fnmatchcase
from typing import Any

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

# EvoNorm and FilterResponseNorm are one with their activation and stay as they are.
NORMS = (
    *(_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(timm_norm.RmsNorm, timm_norm.RmsNormFp32, timm_norm.RmsNorm2d, timm_norm.RmsNorm2dFp32),
    *(timm_norm.SimpleNorm, timm_norm.SimpleNormFp32, timm_norm.SimpleNorm2d, timm_norm.SimpleNorm2dFp32),
)
# eps = tiny^0.6 vanishes beside a variance; eps^{-3/2}, the second derivative of a constant unit, is finite.
EPS_POWER = 0.6


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
