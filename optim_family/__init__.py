"""Compare optimizers by the sharpness they reach, each in its own geometry."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported on first use: `optim-family --help` must not wait for torch.
_HOMES = {
    "FamilyOptimizer": "optim_family.optimizers.base",
    "Member": "optim_family.optimizers.base",
    "HyperParameters": "optim_family.optimizers.base",
    "Geometry": "optim_family.geometry",
    "SymmetricOperator": "optim_family.operators",
    "Probe": "optim_family.sharpness",
    "Reading": "optim_family.sharpness",
    "View": "optim_family.sharpness",
    "measure": "optim_family.measuring",
    "Hessian": "optim_family.hessian",
    "chunk_losses": "optim_family.hessian",
    "ParameterSpace": "optim_family.space",
    "spectral_density": "optim_family.density",
    "SpectralDensity": "optim_family.quadrature",
    "trace": "optim_family.hutchinson",
    "Trace": "optim_family.hutchinson",
    "batch_sharpness": "optim_family.minibatch",
    "BatchSharpness": "optim_family.minibatch",
    "layer_sharpness": "optim_family.layers",
    "Trail": "optim_family.midpoint",
    "moved_to": "optim_family.midpoint",
    "examine": "optim_family.examining",
    "Recorder": "optim_family.recorder",
    "load_runs": "optim_family.tables",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
