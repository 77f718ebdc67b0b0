"""Compare optimizers by the sharpness they reach, each in its own geometry."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Module → its public names, imported on first use: `optim-family --help` must not wait for torch.
_PUBLIC = {
    "optimizers.base": ("FamilyOptimizer", "OptimizerBase", "HyperParameters"),
    "geometry": ("Geometry",),
    "operators": ("SymmetricOperator",),
    "space": ("ParameterSpace",),
    "sharpness.probe": ("Probe", "Reading", "View"),
    "sharpness.measure": ("measure",),
    "sharpness.batch_sharpness": ("batch_sharpness", "BatchSharpness"),
    "sharpness.layer_sharpness": ("layer_sharpness",),
    "sharpness.midpoint": ("WeightHistory", "moved_to"),
    "sharpness.spectrum": ("examine",),
    "curvature.hessian": ("Hessian",),
    "curvature.chunked_loss": ("chunk_losses",),
    "curvature.spectral_density": ("spectral_density",),
    "curvature.gauss_quadrature": ("SpectralDensity",),
    "curvature.trace": ("trace", "Trace"),
    "callbacks.recorder": ("Recorder",),
    "runs.readings_table": ("load_runs",),
    "figures.notebook": ("plot_runs",),
}
_FORMER = {"Member": "optimizers.base", "Trail": "sharpness.midpoint"}  # they work, and nothing lists them
_LAZY = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    module = (_LAZY | _FORMER).get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return __all__
