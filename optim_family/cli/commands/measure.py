"""`optim-family measure`: the sharpness of a model at the user's weights."""

from pathlib import Path
from typing import Any

import rich_click as click

from optim_family.cli.output import PATH, Output, common
from optim_family.cli.run_options import loss_fields, loss_spec_from_options
from optim_family.cli.spectrum import SpectrumOptions, spectrum_options
from optim_family.cli.threads import threads_option


@click.command(
    "measure",
    params=[field.option(field.name, "Loss and views") for field in loss_fields()],
    epilog="Example: measure --model bn_cnn --weights mine.safetensors --density --out measured",
)
@click.option(
    "--weights",
    type=PATH,
    help="A safetensors file with the tensors of the model, or a checkpoint of `run` "
    "(default: the initial weights).",
)
@click.option("--k", type=click.IntRange(1), default=1, help="Number of largest eigenvalues (default 1).")
@threads_option
@spectrum_options
@click.option("--out", type=PATH, help="Folder for measurement.json and the figure.")
@common
def command(output: Output, /, weights: Path | None, k: int, out: Path | None, **options: Any) -> None:
    """Measure the sharpness of a model on data, at weights from a file, without training."""
    from optim_family.cli.measure import measure_command

    spectrum = SpectrumOptions.from_options(options)
    measure_command(loss_spec_from_options(options), weights, k, spectrum, out, output)
