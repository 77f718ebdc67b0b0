"""Compare optimizers by the sharpness they reach, each in its own geometry."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported on first use: `optim-family --help` must not wait for torch.
_LAZY = {
    "FamilyOptimizer": "optim_family.optimizers.base",
    "OptimizerBase": "optim_family.optimizers.base",
    "Member": "optim_family.optimizers.base",  # former name of OptimizerBase
    "HyperParameters": "optim_family.optimizers.base",
    "Geometry": "optim_family.geometry",
    "SymmetricOperator": "optim_family.operators",
    "Probe": "optim_family.sharpness.probe",
    "Reading": "optim_family.sharpness.probe",
    "View": "optim_family.sharpness.probe",
    "measure": "optim_family.sharpness.measure",
    "Hessian": "optim_family.curvature.hessian",
    "chunk_losses": "optim_family.curvature.hessian",
    "ParameterSpace": "optim_family.space",
    "spectral_density": "optim_family.curvature.spectral_density",
    "SpectralDensity": "optim_family.curvature.gauss_quadrature",
    "trace": "optim_family.curvature.trace",
    "Trace": "optim_family.curvature.trace",
    "batch_sharpness": "optim_family.sharpness.batch_sharpness",
    "BatchSharpness": "optim_family.sharpness.batch_sharpness",
    "layer_sharpness": "optim_family.sharpness.layer_sharpness",
    "Trail": "optim_family.sharpness.midpoint",
    "moved_to": "optim_family.sharpness.midpoint",
    "examine": "optim_family.sharpness.spectrum",
    "Recorder": "optim_family.callbacks.recorder",
    "load_runs": "optim_family.runs.readings_table",
}
__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
