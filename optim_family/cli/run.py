"""Execute `optim-family run`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from optim_family.analysis import run_summary
from optim_family.cli import run_progress, run_results, spectrum
from optim_family.cli.output import Output, flat, joined
from optim_family.cli.run_progress import duration
from optim_family.errors import DIVERGED
from optim_family.runs import layout
from optim_family.runs.atomic_files import replace_atomically
from optim_family.runs.labels import label, setting
from optim_family.runs.run import FINISHED, Run, read_run
from optim_family.training.plan import check_plan
from optim_family.training.spec import RunSpec
from optim_family.training.stop_signal import StopSignal

_FIGURES: Final = [f"{layout.FIGURE}.svg", f"{layout.FIGURE}.png"]
_FILES: Final = [
    *(layout.SPEC, layout.PROVENANCE, layout.LOG, layout.STATUS, f"{layout.CHECKPOINTS}/"),
    *(layout.SUMMARY, *_FIGURES),
]


def run_command(
    spec: RunSpec,
    out: Path,
    train_options: Mapping[str, Any],
    requested: spectrum.SpectrumOptions,
    figure_options: run_results.FigureOptions,
    output: Output,
) -> int:
    """Train, unless the run is finished; then summary, figure and spectrum. Returns the exit code.

    `train_options` are those of `training.loop.train`. An existing figure stays unless an option changes it.
    """
    stored = read_run(out) if (out / layout.SPEC).exists() else None
    if stored and stored.spec == spec.model_dump(mode="json") and stored.status.get("status") in FINISHED:
        output.say(f"{out} already holds this run, finished; nothing is computed again")
    elif not _train(spec, out, train_options, output):
        return 0
    run = read_run(out)
    summary = run_summary.summary(run)
    path, figure = out / layout.SUMMARY, figure_options.files(out, layout.FIGURE)
    if figure_options.given or not all(file.exists() for file in (path, *figure)):
        replace_atomically(path, json.dumps(summary, indent=2) + "\n")
        run_results.draw([run], [summary], out, layout.FIGURE, figure_options)
    run_results.show([run], [summary], figure, output)
    diverged = run.status.get("status") == "diverged"
    if requested.names and diverged:
        output.say(f"{out} diverged: the spectrum at its end is not computed")
    elif requested.names:
        _write_spectrum(run, requested, output)
    return DIVERGED if diverged else 0


def _write_spectrum(run: Run, requested: spectrum.SpectrumOptions, output: Output) -> None:
    """Write the requested quantities at the last record into spectrum/, and print them without --json."""
    from optim_family.training.checkpoint_spectrum import checkpoint_spectrum

    file, record = checkpoint_spectrum(run.path, requested.names, requested.depth, output.say)
    title = f"{label(run.spec)}, step {record['step']:,}"
    figure = spectrum.draw(record, file.parent, file.stem, title, setting([run.spec]))
    if not output.json:
        spectrum.show(record, output)
    output.say(f"spectrum: {joined([file, *figure])}")


def preview(spec: RunSpec, out: Path, train_options: Mapping[str, Any], dry_run: str, output: Output) -> int:
    """Print what would be done; write nothing. Returns the exit code.

    With `try` for `dry_run` everything is built, and with `plan` nothing.

    Raises:
        UsageError: the specification is invalid; with `plan`, as far as `check_plan` sees it.
    """
    check_plan(spec)
    tried = _try(spec, train_options, output) if dry_run == "try" else {}
    if spec.notice:
        output.say(spec.notice)
    views = {"views": list(tried.pop("views"))} if tried else {}
    estimate = tried.pop("estimate", None)
    plan = {
        "spec": spec.model_dump(mode="json") | views,
        "records": spec.records,
        **tried,
        "writes": {"folder": str(out), "files": _FILES},
    }
    output.result(plan | ({"estimate": estimate} if estimate else {}), ["", "would run"], list(flat(plan)))
    if estimate and not output.json:
        total, step, reading = (estimate[name] for name in ("seconds", "step_seconds", "reading_seconds"))
        print(
            f"\nestimate on this machine: {duration(total)}; {step:.2g} s a step, {reading:.2g} s a reading"
        )
    return 0


def _try(spec: RunSpec, train_options: Mapping[str, Any], output: Output) -> dict[str, Any]:
    """The views, the provenance and the time of a run, which is built and takes a few steps."""
    from optim_family.curvature.precision import deterministic, full_precision
    from optim_family.study.cost import part_of, time_parts
    from optim_family.training.experiment import build_experiment

    output.say(f"trying {spec.model} on {spec.data} with {spec.optimizer}: steps, products, an evaluation …")
    options = {name: train_options[name] for name in ("memory_format", "make_optimizer", "cuda_graphs")}
    with full_precision(), deterministic():
        experiment = build_experiment(spec, **options)
        if notice := experiment.objective.data.notice:
            output.say(notice)
        images, provenance = experiment.objective.size, experiment.provenance()
        part = part_of(spec, images)
        timing = time_parts(experiment if part.limit == images else build_experiment(part, **options), images)
    seconds = {"step_seconds": timing.step, "reading_seconds": timing.reading, "seconds": timing.total(spec)}
    return {"views": experiment.views, "provenance": provenance, "estimate": seconds}


def _train(spec: RunSpec, out: Path, options: Mapping[str, Any], output: Output) -> bool:
    """Train; return whether this is the main process, which shows the result."""
    from optim_family.training.loop import train
    from optim_family.training.process_group import process_group

    if output.verbose:
        output.say("\n".join(f"{key}: {value}" for key, value in flat(spec.model_dump(mode="json"))))
    title = f"{spec.optimizer} on {spec.model}, {spec.data}: {spec.steps} steps, written to {out}"
    request = (
        "" if output.quiet else "stopping at the next step or product; again to stop without a checkpoint"
    )
    with StopSignal(request).install() as stop, process_group() as group:
        listener = run_progress.listener(title, output.quiet or not group.is_main_process)
        train(spec, out, listener=listener, stop=stop, process_group=group, **options)
    return group.is_main_process
