"""Networks that timm does not have, or not at any width, in their plain form; `adapt` changes them.

Each maps [n, channels, height, width] → [n, classes] and calls its classifier `fc`.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, final

import torch.nn.functional as F
from torch import Tensor, nn

from optim_family.registry import MODELS, load_plugin, named_error, plugin_errors


def bn_cnn(classes: int, channels: int, size: tuple[int, int], *, width: int = 8) -> nn.Module:
    """Three blocks of 3×3 convolution, BN, ReLU: w, 2w, 4w channels, strides 1, 2, 2; mean pooling."""
    widths = channels, _positive(width), 2 * width, 4 * width
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        layers[f"conv{i}"] = conv3x3(inputs, outputs, stride=min(i, 2))
        layers[f"norm{i}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{i}"] = nn.ReLU()
    return _finish(layers, 4 * width, classes)


def bn_mlp(classes: int, channels: int, size: tuple[int, int], *, width: int = 64) -> nn.Module:
    """The image as one vector; two blocks of linear, BN, ReLU, with w units each."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, inputs in enumerate((channels * size[0] * size[1], _positive(width)), start=1):
        layers[f"linear{i}"] = nn.Linear(inputs, width, bias=False)
        layers[f"norm{i}"] = nn.BatchNorm1d(width)
        layers[f"relu{i}"] = nn.ReLU()
    return _initialised(nn.Sequential(layers | {"fc": nn.Linear(width, classes, bias=False)}))


def resnet20(classes: int, channels: int, size: tuple[int, int], *, width: int = 16) -> nn.Module:
    """3×3 convolution, BN, ReLU; three stages of three residual blocks with w, 2w, 4w channels; mean pooling.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", §4.2 (n = 3, option A).
    """
    stem = {"conv": conv3x3(channels, _positive(width)), "norm": nn.BatchNorm2d(width), "relu": nn.ReLU()}
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem)
    for i, (inputs, outputs) in enumerate(pairwise((width, width, 2 * width, 4 * width)), start=1):
        first = ResidualBlock(inputs, outputs, stride=min(i, 2))
        others = (ResidualBlock(outputs, outputs) for _ in range(2))
        layers[f"stage{i}"] = nn.Sequential(first, *others)
    return _finish(layers, 4 * width, classes)


def vgg11(classes: int, channels: int, size: tuple[int, int], *, width: int = 64) -> nn.Module:
    """Eight blocks of 3×3 convolution, BN, ReLU, with w, 2w, 4w, 4w, 8w, 8w, 8w, 8w channels; mean pooling.

    Max-pools follow the 1st, 2nd, 4th, 6th and 8th block; they round up, so that one pixel stays one pixel.
    Source: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    table 1, column A; with BN, and one linear layer in place of three.
    """
    widths = channels, _positive(width), 2 * width, *[4 * width] * 2, *[8 * width] * 4
    pools = {1: "pool1", 2: "pool2", 4: "pool3", 6: "pool4", 8: "pool5"}
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        layers[f"conv{i}"] = conv3x3(inputs, outputs)
        layers[f"norm{i}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{i}"] = nn.ReLU()
        if i in pools:
            layers[pools[i]] = nn.MaxPool2d(2, ceil_mode=True)
    return _finish(layers, 8 * width, classes)


@final
class ResidualBlock(nn.Module):
    """y = ReLU(BN(conv(ReLU(BN(conv(x))))) + x), where x is subsampled and zero-padded if shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv3x3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] → [n, outputs, h / stride, w / stride]."""
        branch = F.relu(self.norm1(self.conv1(x)))
        branch = self.norm2(self.conv2(branch))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))
        return F.relu(branch + shortcut)


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3×3 convolution without bias that keeps the image size, or divides it by the stride."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def _positive(width: int) -> int:
    if type(width) is not int or width < 1:
        raise ValueError(f"width must be a whole number above 0, not {width!r}")
    return width


def _finish(layers: OrderedDict[str, nn.Module], features: int, classes: int) -> nn.Module:
    head = {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return _initialised(nn.Sequential(layers | head | {"fc": nn.Linear(features, classes, bias=False)}))


def _initialised(network: nn.Module) -> nn.Module:
    """He's normal initialisation: the network is trainable without normalisation too."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


_NETWORKS: Final[Sequence[Callable[..., nn.Module]]] = (bn_cnn, bn_mlp, resnet20, vgg11)
BUILTIN: Final = {network.__name__: network for network in _NETWORKS}


def plugin_network(name: str, classes: int, channels: int, size: tuple[int, int], **kwargs: Any) -> nn.Module:
    """Build the network of a plugin: [n, channels, *size] → [n, classes].

    Raises:
        PluginError: the plugin fails, or returns no nn.Module.
    """
    entry, build = load_plugin(MODELS, name)
    with plugin_errors(entry, "cannot be built"):
        network = build(classes, channels, size, **kwargs)
    if not isinstance(network, nn.Module):
        raise named_error(entry, f"returns {type(network).__name__}, not an nn.Module")
    return network
