"""Records and provenance of training, for `run`, `Recorder` and `flow`."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from optim_family.resources import version
from optim_family.space import ParameterSpace


def training_record(
    *,
    step: int,
    tau: float,
    train_loss: float,
    peak_loss: float,
    train_accuracy: float | None,
    test_accuracy: float | None,
    weight_norm: float,
    gradient_norm: float,
    lr: float,
    weight_decay: float,
    views: Mapping[str, Mapping[str, Any] | None],
    elapsed: float,
    test_sets: Mapping[str, float] | None = None,
    hvp: str | None = None,
    along: Mapping[str, Any] | None = None,
    point: str | None = None,
) -> dict[str, Any]:
    """One line of metrics.jsonl, with the effective learning rate ℓ = η / ((1 − ηλ) ρ²).

    ℓ is null where the weights are zero, or the decay takes all of them away in a step.

    Args:
        step: optimizer steps taken.
        tau: τ = Σ ηλ over them.
        train_loss: L at the present weights.
        peak_loss: the highest training loss since the last record.
        train_accuracy: a fraction; None without class labels.
        test_accuracy: a fraction; None without a test set.
        weight_norm: ρ.
        gradient_norm: ‖∇L‖.
        lr: η.
        weight_decay: λ.
        views: the measurement of each view, as JSON.
        elapsed: seconds of the run.
        test_sets: loss on the test set, and loss and accuracy on each further one, by field name.
        hvp: mode of the Hessian-vector products: graphs `retained`, `partly retained` or `rebuilt`.
        along: the measurement along the last update, as JSON.
        point: x or y, where views and norms belong to, if the optimizer averages the weights.
    """
    shrunk = (1 - lr * weight_decay) * weight_norm**2
    return {
        "step": step,
        "tau": tau,
        "train_loss": train_loss,
        "peak_loss": peak_loss,
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
        **(test_sets or {}),
        "weight_norm": weight_norm,
        "gradient_norm": gradient_norm,
        "effective_lr": lr / shrunk if shrunk else None,
        "lr": lr,
        **({"hvp": hvp} if hvp else {}),
        **({"point": point} if point else {}),
        **({"along": along} if along else {}),
        "views": views,
        "elapsed": elapsed,
    }


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
