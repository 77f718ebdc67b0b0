"""Detectors of torchvision: the losses of their heads on two random images with one box each."""

import torch
from torch import Tensor
from torchvision.models import detection, get_model, list_models

from optim_family.networks.families.example import Example


def names() -> list[str]:
    """The detectors with the smallest backbone."""
    return [name for name in all_names() if "mobilenet" in name]


def all_names() -> list[str]:
    """All models that `build` knows."""
    return list(list_models(detection))


def build(name: str) -> Example:
    """The model with three classes."""
    model = get_model(name, num_classes=3, weights=None, weights_backbone=None)
    images = [torch.rand(3, 96, 96, dtype=torch.float64) for _ in range(2)]
    boxes = torch.tensor([[10.0, 10.0, 60.0, 60.0]], dtype=torch.float64)
    targets = [{"boxes": boxes, "labels": torch.tensor([1])} for _ in range(2)]
    return Example(model, _sum, ((images, targets), None))


def _sum(losses: dict[str, Tensor], y: None) -> Tensor:
    return torch.stack(list(losses.values())).sum()
