"""`optim-family run`: train one optimizer on one model, and measure its sharpness."""

from pathlib import Path
from typing import Any, get_args

import rich_click as click

from optim_family.cli.output import PATH, Output, common
from optim_family.cli.run_options import RunCommand, dry_run_option, run_fields, run_spec_from_options
from optim_family.cli.run_results import FigureOptions, figure_options
from optim_family.cli.spectrum import SpectrumOptions, spectrum_options
from optim_family.cli.threads import threads_option
from optim_family.errors import UsageError
from optim_family.training.spec import MemoryFormat


@click.command(
    "run",
    cls=RunCommand,
    params=[field.option(field.name, "Run") for field in run_fields()],
    epilog="With --optimizer NAME, --help lists its hyper-parameters too: run --optimizer rmsprop --help",
)
@click.option("--out", type=PATH, help="Run directory (default runs/ and the run's name).")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue an unfinished run, or start it if there is none; "
    "without --optimizer, the specification comes from --out.",
)
@click.option(
    "--memory-format",
    type=click.Choice(get_args(MemoryFormat)),
    help="Layout of images in memory (default: channels-last on a CPU; a resumed run keeps its layout).",
)
@click.option(
    "--cuda-graphs",
    is_flag=True,
    help="On a GPU, replay the gradients of steps as a CUDA graph, where that changes no bit.",
)
@threads_option
@dry_run_option(
    "Build everything, time a few steps, print the plan and an estimated time; write nothing. With =plan "
    "only names, files, schedule and ghost batch are checked; nothing is loaded."
)
@figure_options
@spectrum_options
@common
def command(output: Output, /, out: Path | None, dry_run: str | None, **options: Any) -> int:
    """Train one optimizer on one model, and measure its sharpness in its own geometry."""
    from optim_family.cli.run import preview, run_command

    spectrum, figure = SpectrumOptions.from_options(options), FigureOptions.from_options(options)
    train = {name: options.pop(name) for name in ("resume", "memory_format", "cuda_graphs")}
    if train["resume"] and not out and not options["optimizer"]:
        raise UsageError("run --resume needs --out, the folder of the run")
    spec, train["make_optimizer"] = run_spec_from_options(options, out if train["resume"] else None)
    out = out or Path("runs") / spec.title
    if dry_run:
        return preview(spec, out, train, dry_run, output)
    return run_command(spec, out, train, spectrum, figure, output)
