"""`optim-family study`: a whole grid of runs, how far it is, and what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from optim_family.cli.lazy_groups import listing
from optim_family.cli.output import Output
from optim_family.training.spec import slug

if TYPE_CHECKING:
    from optim_family.study.spec import StudySpec


@listing("study")
def command(output: Output) -> None:
    """List the studies; PATH.toml is a study of your own."""
    from optim_family.study.spec import questions

    known = questions()
    if output.json:
        return output.data([{"name": name, "question": text} for name, text in known.items()])
    output.table(["study", "question"], [[name, text] for name, text in known.items()])


def chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which runs of a study are meant, and where they are."""
    options = (
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            help="Folder of the runs (default runs/ and the study's name).",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change the study: train.steps=100. Holds for all grids.",
        ),
        click.option(
            "--only",
            multiple=True,
            metavar="KEY=VALUE",
            help="Only some of its runs: optimizer=gd,sgd or lr=0.1.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command.named("run")
@chosen
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Runs at a time (default: as cores and memory allow; one if there is a GPU).",
)
@click.option(
    "--launcher",
    type=click.Choice(["local", "submitit", "ray"]),
    default="local",
    help="Who starts the runs: this machine, SLURM, or a Ray cluster.",
)
@click.option(
    "--set-launcher",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of submitit (partition=gpu) or of Ray (num_gpus=1), for each run.",
)
@click.option("--address", help="Of the Ray cluster; without it one is started on this machine.")
@click.option("--dry-run", is_flag=True, help="Say what would be run, and what it would cost.")
def run(output: Output, name: str, workers: int | None, dry_run: bool, **which: Any) -> int:
    """Carry out what is left of a study, and write its report."""
    from optim_family.cli import launching
    from optim_family.cli import study as work

    launcher = launching.taken(which)
    study, folder = _study(name, **which)
    if dry_run:
        return work.preview(study, folder, workers, output)
    return work.carry_out(study, folder, workers, output, launcher(folder))


@command.named("status")
@chosen
def status(output: Output, name: str, **which: Any) -> None:
    """Say how far the runs of a study are."""
    from optim_family.cli import study as work

    work.show_states(*_study(name, **which), output)


@command.named("report")
@chosen
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), help="Folder (default: OUT/report).")
def report(output: Output, name: str, to: Path | None, **which: Any) -> None:
    """Evaluate what is there of a study: one HTML page, tables, figures."""
    from optim_family.cli import study as work

    study, folder = _study(name, **which)
    work.write_report(study, folder, to or folder / "report", output)


@command.named("show")
@chosen
def show(output: Output, name: str, **which: Any) -> None:
    """Show the question of a study, its claims and its runs."""
    from optim_family.cli import study as work

    work.show(*_study(name, **which), output)


def _study(
    name: str, out: Path | None, settings: tuple[str, ...], only: tuple[str, ...]
) -> "tuple[StudySpec, Path]":
    from optim_family.study.spec import load

    study = load(name, settings).only(only)
    return study, out or Path("runs") / slug(study.name)
