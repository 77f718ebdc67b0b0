"""The smallest model of every family of timm, on four random images of the smallest size that it accepts."""

import itertools
import math
from contextlib import suppress
from typing import Any, Final

import timm
import torch
from torch import nn

from optim_family.errors import one_line
from optim_family.networks.families.example import (
    LARGEST,
    Example,
    classification_loss,
    parameter_count,
    require_small,
)

SIZES: Final = (32, 64, 96, 128, 160, 224, 256)
SMALL_NAMES: Final = ("test_", "atto", "femto", "pico", "nano", "tiny", "mini", "small", "xxs", "18", "121")
# Arguments that make the smallest model of a family smaller, tried in order.
REDUCTIONS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"depth": 2, "embed_dim": 192, "num_heads": 3},
    {"depths": (1, 1, 1, 1)},
    {"num_features": 128},
)


def names() -> list[str]:
    """The smallest model of every family, by size: it builds three of each without storage, in a minute."""
    modules = timm.models.list_modules()
    families = filter(None, (timm.list_models(module=module) for module in modules))
    return [name for _, name in sorted(map(_smallest, families))]


def all_names() -> list[str]:
    """All models that `build` knows."""
    return list(timm.list_models())


def build(name: str) -> Example:
    """The model with ten classes.

    Raises:
        ValueError: it is too large, or accepts no size of images from 32 to 256.
    """
    changes = _reduction(name)
    reason = ""
    for side, sized in itertools.product(SIZES, (True, False)):
        try:
            return _with_images(name, side, {"img_size": side} if sized else {}, changes)
        except Exception as error:  # another size
            reason = one_line(error)
    raise ValueError(f"no image size from 32 to 256 fits: {reason}")


def _reduction(name: str) -> dict[str, Any]:
    """The first arguments that make a model small enough."""
    sizes = []
    for changes in REDUCTIONS:
        sizes.append(_size(name, num_classes=10, **changes))
        if sizes[-1] <= LARGEST:
            return changes
    if math.isfinite(sizes[0]):
        require_small(sizes[0])
    return {}  # its constructor will say what is wrong


def _with_images(name: str, side: int, sized: dict[str, Any], changes: dict[str, Any]) -> Example:
    model: Any = timm.create_model(name, num_classes=10, **changes, **sized)
    channels: int = model.pretrained_cfg["input_size"][0]
    with torch.no_grad():
        model.eval()(torch.zeros(2, channels, side, side))
    x = torch.randn(4, channels, side, side, dtype=torch.float64)
    return Example(model.train(), classification_loss, (x, torch.arange(4)))


def _smallest(family: list[str]) -> tuple[float, str]:
    """Number of parameters and name of the smallest of the three models whose names say small."""

    def rank(name: str) -> int:
        return next((i for i, token in enumerate(SMALL_NAMES) if token in name), len(SMALL_NAMES))

    return min((_size(name), name) for name in sorted(family, key=rank)[:3])


def _size(name: str, **settings: Any) -> float:
    """The number of parameters, counted without storage; infinite where that fails."""
    with torch.device("meta"), suppress(Exception):
        model: nn.Module = timm.create_model(name, **settings)
        return parameter_count(model)
    return math.inf
