"""Execute `optim-family measure`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from optim_family.cli.output import Output, by_suffix, joined, write_json
from optim_family.cli.spectrum import SpectrumOptions, draw, show, show_readings
from optim_family.curvature.precision import deterministic, full_precision
from optim_family.errors import UsageError
from optim_family.geometry import UnknownMetric
from optim_family.networks.pretrained import load_weights, unreadable
from optim_family.runs.atomic_files import make_folder
from optim_family.runs.labels import setting
from optim_family.sharpness.probe import Reading
from optim_family.sharpness.probe_set import ProbeSet, lanczos_instead
from optim_family.sharpness.spectrum import examine
from optim_family.sharpness.view_selection import select_views
from optim_family.training.experiment import build_objective, check_scale_invariance
from optim_family.training.spec import RunSpec

_NO_METRIC: Final = "weights alone have no optimizer (`optim-family run` measures while one trains)"


def measure_command(
    spec: RunSpec, weights: Path | None, k: int, spectrum: SpectrumOptions, out: Path | None, output: Output
) -> None:
    """Measure, write measurement.json and the figure into the folder `out`, if any, and print."""
    with full_precision(), deterministic():
        measurement = _measure(spec, weights, k, spectrum, output)
    model = f"{spec.model}, {weights.name if weights else 'initial weights'}"
    data = setting([{"hyper": {}, **measurement["spec"]}])
    figure: list[Path] = []
    if out:
        make_folder(out)
        write_json(out / "measurement.json", measurement)
        figure = draw(measurement.get("spectrum", {}), out, "spectrum", model, data)
    if output.json:
        return output.data(measurement | {"figure": by_suffix(figure)})
    _show(measurement, model, data, output)
    if figure:
        print(f"\nfigure: {joined(figure)}")


def _measure(
    spec: RunSpec, weights: Path | None, k: int, spectrum: SpectrumOptions, output: Output
) -> dict[str, Any]:
    """The measurement as JSON.

    Raises:
        UsageError: an invalid name, view or device, or weights of another network.
        CorruptError: the data or the weights are damaged.
    """
    if weights and not weights.exists():  # before the network is built
        raise unreadable(weights, "No such file or directory")
    if spec.precision == "tf32":
        raise UsageError("a measurement never uses TF32; choose --precision float32 or float64")
    objective = build_objective(spec)
    sha256 = load_weights(objective.model, weights, spec.model) if weights else None
    verdict = check_scale_invariance(objective)
    selection = select_views(
        spec.views,
        UnknownMetric(objective.space.dim, _NO_METRIC),
        invariant=verdict.invariant,
        loss=f"{spec.model} with norm {spec.norm} is {verdict.summary}",
    )
    _say_notices(objective.data.notice, selection.skipped, verdict.summary, output)
    hessian, space = objective.hessian(), objective.space
    options: dict[str, Any] = {"rtol": spec.rtol, "seed": spec.seed, "k": k}
    readings = ProbeSet(selection.views, reading=spec.reading, **options)(hessian, space.weights())
    quantities = {}
    if spectrum.names:
        options["view"] = "spherical" if "spherical" in selection.views else selection.views[0]
        quantities["spectrum"] = examine(
            hessian, space, quantities=spectrum.names, depth=spectrum.depth, **options
        )
    _say_changes(spec, hessian.ran_out_of_memory, readings, output)
    return {
        "spec": spec.model_dump(mode="json", exclude={"optimizer", "hyper", "steps", "every"}),
        "weights": weights and {"path": str(weights), "sha256": sha256},
        "model": {"trained": objective.space.dim, "verdict": verdict.summary},
        "data": {"sha256": objective.data.sha256, "train": objective.size},
        "ghost_batch": objective.ghost_batch,
        **asdict(objective.evaluate()),
        "hvp": hessian.hvp,
        "views": {name: reading.as_record() for name, reading in readings.items()},
        **quantities,
    }


def _say_notices(data: str, skipped: Sequence[str], verdict: str, output: Output) -> None:
    """How a file of images was read, and the views that do not apply."""
    if data:
        output.say(data)
    if skipped:
        output.say(f"{' and '.join(skipped)} sharpness: not applicable, the loss is {verdict}")


def _say_changes(spec: RunSpec, now_rebuilt: bool, readings: Mapping[str, Reading], output: Output) -> None:
    """What was measured in another way than the options say."""
    if spec.reading == "sampled" and (reason := lanczos_instead(readings)):
        output.say(reason)
    if now_rebuilt:
        output.say("the graphs of the gradients do not fit in memory; they were rebuilt for every product")


def _show(measurement: Mapping[str, Any], model: str, data: str, output: Output) -> None:
    output.say(
        f"{model}: {measurement['model']['trained']:,} weights, {measurement['model']['verdict']}; "
        f"Hessian {measurement['hvp']}\n"
        f"{data}: loss {measurement['train_loss']:.4g}, accuracy "
        f"{measurement['train_accuracy']:.1%} in training, {measurement['test_accuracy']:.1%} in test\n"
    )
    show_readings("view", measurement["views"], output)
    show(measurement.get("spectrum", {}), output)
