"""Density, trace and layers of the Hessian at a run's last checkpoint, in its optimizer's geometry."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from optim_family.curvature.precision import deterministic, full_precision
from optim_family.errors import UsageError
from optim_family.runs.atomic_files import replace_atomically, writing
from optim_family.runs.layout import CHECKPOINTS, SPECTRUM
from optim_family.runs.run import read_run
from optim_family.sharpness.spectrum import examine
from optim_family.sharpness.views import VIEWS
from optim_family.training import checkpoint
from optim_family.training.experiment import build_experiment
from optim_family.training.spec import RunSpec


def checkpoint_spectrum(
    path: Path,
    quantities: Iterable[str],
    depth: int | None = None,
    on_message: Callable[[str], None] = print,
) -> tuple[Path, dict[str, Any]]:
    """Examine a run at its last checkpoint, which for a finished run is its last record.

    The view is the last eigenvalue that the run measures: that in the optimizer's metric, if it has one.

    Args:
        path: the run directory.
        quantities: names out of density, trace, layers.
        depth: of the layers, as in `layer_sharpness.layers`.
        on_message: called for each damaged checkpoint that is skipped.

    Returns:
        The file, spectrum/step-N.json in the run directory, and its content: the record of `examine`, the
        `step`, and the mode of the Hessian-vector products, `hvp`.

    Raises:
        UsageError: there is no run or no checkpoint.
        CorruptError: the run or all of its checkpoints are damaged.
        FloatingPointError: a Hessian-vector product is not finite.
    """
    spec = RunSpec.model_validate(read_run(path).spec)
    latest = checkpoint.load_latest(path / CHECKPOINTS, on_message, spec.key)
    if latest is None:
        raise UsageError(f"{path} has no checkpoint; start the run first")
    step, tree = latest
    with full_precision(), deterministic():
        experiment = build_experiment(spec)
        objective = experiment.objective
        objective.model.load_state_dict(tree["model"])
        experiment.optimizer.load_state_dict(tree["optimizer"])
        objective.gradient(step)
        geometry = experiment.geometry()
        with experiment.measured_point(step):
            eigenvalues = [name for name in experiment.views if not VIEWS[name].generalized]
            view = eigenvalues[-1] if eigenvalues else "raw"
            options: dict[str, Any] = {"view": view, "rtol": spec.rtol, "seed": spec.seed}
            hessian = objective.hessian()
            record = examine(
                hessian, objective.space, geometry, quantities=quantities, depth=depth, **options
            )
    at = {"point": experiment.point} if experiment.point else {}
    record = {"step": step, "hvp": hessian.hvp, **at, **record}
    file = path / SPECTRUM / f"step-{step:08d}.json"
    with writing(file.parent):
        file.parent.mkdir(exist_ok=True)
    replace_atomically(file, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return file, record
