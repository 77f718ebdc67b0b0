"""`optim-family flow`: the sharpness-reduction flow compared with gradient descent."""

from pathlib import Path

import rich_click as click

from optim_family.cli.output import Output, common


@click.command("flow", epilog="SUBJECT is sphere, regression, completion, valley or convergence.")
@click.argument("subject", required=False)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    help="A run of gradient descent with weight decay to repeat and compare with the flow past its edge.",
)
@click.option(
    "--checkpoints",
    type=click.IntRange(2),
    default=8,
    show_default=True,
    help="With --run: number of comparisons.",
)
@click.option(
    "--removed",
    type=click.IntRange(2),
    default=40,
    show_default=True,
    help="With --run: how many top eigenvectors count as directions across the minimisers.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    help="Folder for the figure as .svg and .png, its numbers as .json and a film as .gif (default: here).",
)
@common
@click.pass_obj
def command(
    output: Output, subject: str | None, run: Path | None, checkpoints: int, removed: int, out: Path
) -> None:
    """Compare the sharpness-reduction flow with gradient descent: on the sphere, on toys, on a run."""
    from optim_family.cli.flow import compare_run, deliver, run_subject

    if run is None:
        demo = run_subject(subject, output)
    else:
        demo = compare_run(subject, run, checkpoints, removed, output)
    deliver(demo, out, output)
