"""Versions, hardware and data that the numbers of a run depend on, for `run`, `Recorder` and `flow`."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from optim_family.resources import version
from optim_family.space import ParameterSpace


def library_versions(libraries: Sequence[str]) -> dict[str, str]:
    """The version of each distribution, or `not installed`."""
    return {name: version(name) or "not installed" for name in libraries}


def make_provenance(
    space: ParameterSpace,
    *,
    libraries: Sequence[str],
    optimizer: Mapping[str, Any],
    data: Mapping[str, Any],
    device: str,
    model: Mapping[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The content of provenance.json.

    Args:
        space: the trained tensors.
        libraries: distributions whose versions matter; Python's version is always included.
        optimizer: its class and distribution.
        data: sizes and checksum of the data.
        device: name of the device.
        model: properties of the model beyond the size of `space`.
        **fields: further fields.
    """
    return {
        "versions": {"python": platform.python_version(), **library_versions(libraries)},
        "optimizer": optimizer,
        "data": data,
        "model": {"trained": space.dim, "tensors": len(space.tensors), **(model or {})},
        "device": device,
        "threads": torch.get_num_threads(),
        **fields,
    }
