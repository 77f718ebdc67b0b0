"""What `optim-family measure` does once it knows what is wanted."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from optim_family.cli.output import Output
from optim_family.cli.spectrum import SpectrumOptions, draw, show, show_readings
from optim_family.curvature.precision import deterministic, full_precision
from optim_family.geometry import UnknownMetric
from optim_family.networks.pretrained import load_weights
from optim_family.runs.atomic_files import replace_atomically, writing
from optim_family.runs.labels import setting
from optim_family.sharpness.probe import ProbeSet
from optim_family.sharpness.spectrum import examine
from optim_family.sharpness.view_selection import WEIGHTS, select_views
from optim_family.training.experiment import build_objective, check_scale_invariance
from optim_family.training.objective import Objective
from optim_family.training.spec import RunSpec

_NO_METRIC: Final = "weights alone have no optimizer (`optim-family run` measures while one trains)"


def measure_command(
    spec: RunSpec, weights: Path | None, k: int, spectrum: SpectrumOptions, out: Path | None, output: Output
) -> int:
    """Measure, show, and write what is to be written. Returns the exit code."""
    with full_precision(), deterministic():
        found = measured(spec, weights, k, spectrum, output)
    figure = _write(found, out) if out else []
    if output.json:
        output.data(found | {"figure": {path.suffix[1:]: str(path) for path in figure}})
    else:
        _show(found, figure, output)
    return 0


def measured(
    spec: RunSpec, weights: Path | None, k: int, spectrum: SpectrumOptions, output: Output
) -> dict[str, Any]:
    """Everything that is asked for, as JSON.

    Raises:
        UsageError: a name, a view or a device that cannot be, or weights of another network.
        CorruptError: the data or the weights are damaged.
    """
    objective = build_objective(spec)
    sha256 = load_weights(objective.model, weights, spec.model) if weights else None
    verdict = check_scale_invariance(objective)
    selection = select_views(
        spec.views,
        WEIGHTS,
        UnknownMetric(objective.space.dim, _NO_METRIC),
        invariant=verdict.invariant,
        loss=f"{spec.model} with norm {spec.norm} is {verdict.summary}",
    )
    if selection.skipped:
        output.say(
            f"{' and '.join(selection.skipped)} sharpness: not applicable, the loss is {verdict.summary}"
        )
    found = {
        "spec": spec.model_dump(mode="json", exclude={"optimizer", "hyper", "steps", "every"}),
        "weights": weights and {"path": str(weights), "sha256": sha256},
        "model": {"trained": objective.space.dim, "verdict": verdict.summary},
        "data": {"sha256": objective.data.sha256, "train": objective.size},
        "ghost_batch": objective.ghost_batch,
    }
    options = {"rtol": spec.rtol, "seed": spec.seed, "k": k}
    readings = _readings(objective, selection.views, spectrum, options, output)
    return found | asdict(objective.evaluate()) | readings


def _readings(
    objective: Objective,
    views: tuple[str, ...],
    spectrum: SpectrumOptions,
    options: Mapping[str, Any],
    output: Output,
) -> dict[str, Any]:
    hessian, space = objective.hessian(), objective.space
    readings = ProbeSet(views, **options)(hessian, space.weights())
    found: dict[str, Any] = {"views": {name: reading.as_record() for name, reading in readings.items()}}
    if spectrum.names:
        view = "spherical" if "spherical" in views else views[0]
        found["looks"] = examine(
            hessian, space, view=view, quantities=spectrum.names, depth=spectrum.depth, **options
        )
    if hessian.mode != objective.mode:
        output.say("the gradients' graphs do not fit the memory; they were rebuilt for every product")
    return {"hvp": hessian.mode} | found


def _write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """measurement.json, and spectrum.svg and .png where there is something to draw; their paths."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
    replace_atomically(folder / "measurement.json", text + "\n")
    return draw(found.get("looks", {}), folder, "spectrum", _name(found), _setting(found))


def _name(found: Mapping[str, Any]) -> str:
    weights = found["weights"]
    return f"{found['spec']['model']}, {Path(weights['path']).name if weights else 'initial weights'}"


def _setting(found: Mapping[str, Any]) -> str:
    return setting([{"hyper": {}, **found["spec"]}])


def _show(found: Mapping[str, Any], figure: Iterable[Path], output: Output) -> None:
    model = found["model"]
    output.say(
        f"{_name(found)}: {model['trained']:,} weights, {model['verdict']}; Hessian {found['hvp']}\n"
        f"{_setting(found)}: loss {found['train_loss']:.4g}, accuracy "
        f"{found['train_accuracy']:.1%} in training, {found['test_accuracy']:.1%} in test\n"
    )
    show_readings("view", found["views"], output)
    if "looks" in found:
        show(found["looks"], output)
    if paths := "  ".join(map(str, figure)):
        print(f"\nfigure: {paths}")
