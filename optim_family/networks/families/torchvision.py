"""The smallest classifier of every module of torchvision, on four random images."""

import torch
from torchvision import models

from optim_family.networks.families.example import (
    Example,
    classification_loss,
    parameter_count,
    require_small,
)


def names() -> list[str]:
    """The smallest classifier of every module."""
    sizes: dict[str, dict[str, int]] = {}
    for name in all_names():
        count = models.get_model_weights(name).DEFAULT.meta["num_params"]
        sizes.setdefault(models.get_model_builder(name).__module__, {})[name] = count
    return sorted(min(family, key=family.__getitem__) for family in sizes.values())


def all_names() -> list[str]:
    """All models that `build` knows."""
    return list(models.list_models(models))


def build(name: str) -> Example:
    """The model with ten classes.

    Raises:
        ValueError: it is too large.
    """
    side = 299 if "inception" in name else 224 if "vit" in name else 64
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, num_classes=10, **extra)
    require_small(parameter_count(model))
    x = torch.randn(4, 3, side, side, dtype=torch.float64)
    return Example(model, classification_loss, (x, torch.arange(4)))
