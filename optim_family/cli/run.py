"""What `optim-family run` does once it knows what is wanted."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

from optim_family.analysis import run_summary
from optim_family.cli import run_progress
from optim_family.cli.output import Output, flat
from optim_family.cli.run_results import draw, paths, show
from optim_family.cli.spectrum import SpectrumOptions
from optim_family.cli.spectrum import draw as draw_look
from optim_family.cli.spectrum import show as show_look
from optim_family.figures.overlays import NAMES
from optim_family.runs.atomic_files import replace_atomically
from optim_family.runs.labels import label, setting
from optim_family.runs.run import Run, read_run
from optim_family.training.spec import MemoryFormat, RunSpec
from optim_family.training.stop_signal import StopSignal

DIVERGED: Final = 3  # exit code: the result is kept
_FINISHED: Final = ("done", "diverged")
_WRITTEN: Final = [
    *("spec.json", "provenance.json", "metrics.jsonl", "status.json", "checkpoints/"),
    *("summary.json", "figure.svg", "figure.png"),
]


def run_command(
    spec: RunSpec,
    make_optimizer: Callable[..., Any],
    out: Path,
    resume: bool,
    memory_format: MemoryFormat | None,
    spectrum: SpectrumOptions,
    overlays: Collection[str] | None,
    output: Output,
) -> int:
    """Train, unless that was done before; then summary, figure and spectrum. Returns the exit code.

    A figure that is there stays, unless its overlays are chosen anew.
    """
    if _finished(spec, out):
        output.say(f"{out} holds this run already, finished; nothing is computed again")
    elif not _train(spec, make_optimizer, out, resume, memory_format, output):
        return 0
    run = read_run(out)
    summary, figure = out / "summary.json", paths(out, "figure")
    if overlays is not None or not all(path.exists() for path in (summary, *figure)):
        replace_atomically(summary, json.dumps(run_summary.summary(run), indent=2) + "\n")
        draw([run], out, "figure", NAMES if overlays is None else overlays)
    show([run], figure, output)
    diverged = run.status.get("status") == "diverged"
    if spectrum.names and diverged:
        output.say(f"{out} diverged: there is nothing to look at where it ended")
    elif spectrum.names:
        _write_spectrum(run, spectrum, output)
    return DIVERGED if diverged else 0


def _write_spectrum(run: Run, spectrum: SpectrumOptions, output: Output) -> None:
    """More than one number at the last record, into spectrum/; with --json the words go to stderr."""
    from optim_family.training.checkpoint_spectrum import checkpoint_spectrum

    file, record = checkpoint_spectrum(run.path, spectrum.names, spectrum.depth, output.say)
    title = f"{label(run.spec)}, step {record['step']:,}"
    figure = draw_look(record, file.parent, file.stem, title, setting([run.spec]))
    if not output.json:
        show_look(record, output)
    output.say(f"spectrum: {'  '.join(map(str, [file, *figure]))}")


def preview(
    spec: RunSpec,
    make_optimizer: Callable[..., Any],
    out: Path,
    memory_format: MemoryFormat | None,
    output: Output,
) -> int:
    """Build everything, and say what would be done; nothing is written. Returns the exit code."""
    from optim_family.curvature.precision import full_precision
    from optim_family.training.experiment import build_experiment

    with full_precision():
        experiment = build_experiment(spec, memory_format=memory_format, make_optimizer=make_optimizer)
    plan = {
        "spec": spec.model_dump(mode="json") | {"views": list(experiment.views)},
        "provenance": experiment.provenance(),
        "writes": {"folder": str(out), "files": _WRITTEN},
    }
    if output.json:
        output.data(plan)
    else:
        output.table(["", "would run"], [list(pair) for pair in flat(plan)])
    return 0


def _finished(spec: RunSpec, out: Path) -> bool:
    if not (out / "spec.json").exists():
        return False
    run = read_run(out)
    return run.spec == spec.model_dump(mode="json") and run.status.get("status") in _FINISHED


def _train(
    spec: RunSpec,
    make_optimizer: Callable[..., Any],
    out: Path,
    resume: bool,
    memory_format: MemoryFormat | None,
    output: Output,
) -> bool:
    """Train; whether it is this process that shows the result."""
    from optim_family.training.loop import train
    from optim_family.training.process_group import process_group

    if output.verbose:
        output.say("\n".join(f"{key}: {value}" for key, value in flat(spec.model_dump(mode="json"))))
    title = f"{spec.optimizer} on {spec.model}, {spec.data}: {spec.steps} steps, written to {out}"
    with StopSignal().install() as stop, process_group() as group:
        listener = run_progress.listener(title, output.quiet or not group.is_main_process)
        train(
            spec,
            out,
            resume=resume,
            listener=listener,
            stop=stop,
            process_group=group,
            memory_format=memory_format,
            make_optimizer=make_optimizer,
        )
    return group.is_main_process
