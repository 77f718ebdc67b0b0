"""`optim-family study`: run a grid of runs, follow its progress, write its report."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from optim_family.cli.lazy_groups import listing
from optim_family.cli.output import FOLDER, PATH, Output, add_options
from optim_family.cli.run_options import DryRunCommand, dry_run_option
from optim_family.training.spec import slug

if TYPE_CHECKING:
    from optim_family.study.spec import StudySpec


@listing("study")
def command(output: Output) -> None:
    """List the studies; PATH.toml names a study of your own."""
    from optim_family.study.spec import questions

    studies = questions()
    values = [{"name": name, "question": text} for name, text in studies.items()]
    output.result(values, ["study", "question"], list(studies.items()))


_pairs_option = partial(click.option, multiple=True, metavar="KEY=VALUE")
# Options that select the runs of a study and their folder.
study_options = add_options(
    click.option("--out", type=PATH, help="Folder of the runs (default: runs/STUDY)."),
    _pairs_option("--set", "settings", help="Change a setting in all grids, for example train.steps=100."),
    _pairs_option("--only", help="Select runs, for example optimizer=gd,sgd or lr=0.1."),
)


@command.subcommand("run", cls=DryRunCommand)
@study_options
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Runs at a time (default: as many as cores and memory allow; one with a GPU).",
)
@click.option(
    "--launcher",
    type=click.Choice(["local", "submitit", "ray"]),
    default="local",
    help="Where the runs are executed: this machine, SLURM (submitit) or a Ray cluster.",
)
@_pairs_option("--set-launcher", help="Option of submitit (partition=gpu) or Ray (num_gpus=1) for each run.")
@click.option("--address", help="Address of the Ray cluster (default: start one on this machine).")
@dry_run_option(
    "Print the runs with the time and memory that a try of each kind takes. With =plan try nothing."
)
def run(output: Output, name: str, workers: int | None, dry_run: str | None, **options: Any) -> int:
    """Execute the unfinished runs of a study, and write its report."""
    from optim_family.cli.study import launcher_from_options, preview, study_command

    launcher = {option: options.pop(option) for option in ("launcher", "set_launcher", "address")}
    study, folder = _study(name, **options)
    if dry_run:
        return preview(study, folder, workers, dry_run, output)
    start_launcher = launcher_from_options(folder=folder, **launcher)
    return study_command(study, folder, workers, output, start_launcher)


@command.subcommand("status")
@study_options
def status(output: Output, name: str, **selection: Any) -> None:
    """Show the progress of every run of a study."""
    from optim_family.cli.study import show_states

    show_states(*_study(name, **selection), output)


@command.subcommand("report")
@study_options
@click.option("--to", type=FOLDER, help="Folder of the report (default: OUT/report).")
def report(output: Output, name: str, to: Path | None, **selection: Any) -> None:
    """Write a report on the runs that have begun: one HTML page, tables, figures."""
    from optim_family.cli.study import write_report

    study, folder = _study(name, **selection)
    write_report(study, folder, to or folder / "report", output)


@command.subcommand("show")
@study_options
def show(output: Output, name: str, **selection: Any) -> None:
    """Show the question of a study, its claims and its runs."""
    from optim_family.cli import study

    study.show(*_study(name, **selection), output)


def _study(
    name: str, out: Path | None, settings: tuple[str, ...], only: tuple[str, ...]
) -> "tuple[StudySpec, Path]":
    from optim_family.study.spec import load

    study = load(name, settings).only(only)
    return study, out or Path("runs") / slug(study.name)
