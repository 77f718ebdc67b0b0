"""`optim-family run`: one optimizer on one model, measured."""

from pathlib import Path
from typing import Any, get_args

import rich_click as click

from optim_family.cli.output import Output, common
from optim_family.cli.run_options import RunCommand, run_fields, run_spec_from_options, saved_spec
from optim_family.cli.run_results import overlay_option
from optim_family.cli.spectrum import SpectrumOptions, spectrum_options
from optim_family.training.spec import MemoryFormat


@click.command(
    "run",
    cls=RunCommand,
    params=[field.option(field.name, "Run") for field in run_fields()],
    epilog="With --optimizer NAME, --help lists its hyper-parameters too: run --optimizer rmsprop --help",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run directory (default runs/ and the run's name)."
)
@click.option(
    "--resume", is_flag=True, help="Continue an unfinished run; with --out alone, the run in there."
)
@click.option(
    "--memory-format",
    type=click.Choice(get_args(MemoryFormat)),
    help="Layout of images in memory (default as the run began; else channels-last on a CPU).",
)
@click.option("--dry-run", is_flag=True, help="Build everything, say what would be done, and write nothing.")
@overlay_option
@spectrum_options
@common
@click.pass_obj
def command(
    output: Output, /, out: Path | None, resume: bool, dry_run: bool, overlay: str | None, **given: Any
) -> int:
    """Train one optimizer on one model, and measure its sharpness in its own geometry."""
    from optim_family.cli.run import preview, run_command
    from optim_family.figures.overlays import parse_overlays

    spectrum = SpectrumOptions.from_options(given)
    overlays = None if overlay is None else parse_overlays(overlay)
    inherited = saved_spec(out) if resume and out and not given["optimizer"] else {}
    layout: MemoryFormat | None = given.pop("memory_format")
    spec, make_optimizer = run_spec_from_options(given, inherited)
    out = out or Path("runs") / spec.title
    if dry_run:
        return preview(spec, make_optimizer, out, layout, output)
    return run_command(spec, make_optimizer, out, resume, layout, spectrum, overlays, output)
