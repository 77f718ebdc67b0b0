"""The options, tables and figure of density, trace and layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import rich_click as click

from optim_family.cli.output import Output, add_options
from optim_family.errors import UsageError

_HEADERS: Final = ("sharpness", "error", "upper bound − value", "residual", "HVPs", "seconds", "")

_option = partial(click.option, panel="Spectrum")
_LAYERS: Final = (
    "Measure λ₁ of each layer: tensors whose names share their first DEPTH parts (default: each tensor)."
)

spectrum_options = add_options(
    _option("--density", is_flag=True, help="Compute the spectral density of the Hessian."),
    _option("--trace", is_flag=True, help="Compute the trace: the sum of all eigenvalues."),
    _option("--layers", is_flag=False, flag_value="all", metavar="[DEPTH]", help=_LAYERS),
)


@final
@dataclass(frozen=True)
class SpectrumOptions:
    """The quantities to compute in addition to λ₁, and the depth at which tensors are grouped into layers."""

    names: tuple[str, ...]
    depth: int | None = None

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> "SpectrumOptions":
        """Remove `density`, `trace` and `layers` (a depth, or `all`) from the options of a command.

        Raises:
            UsageError: the depth is not a positive integer.
        """
        requested = {name: options.pop(name) for name in ("density", "trace", "layers")}
        names = tuple(name for name, value in requested.items() if value not in (None, False))
        layers = requested["layers"]
        if layers in (None, "all"):
            return cls(names)
        if not (layers.isdecimal() and int(layers)):
            raise UsageError(f"--layers: the depth must be a whole number above 0, not {layers}")
        return cls(names, int(layers))


def draw(record: Mapping[str, Any], folder: Path, stem: str, title: str, subtitle: str) -> list[Path]:
    """Draw a record of `examine` as STEM.svg and STEM.png; return the paths, or [] without such data."""
    from optim_family.figures import spectrum_figure, style

    if not record.keys() & spectrum_figure.DRAW.keys():
        return []
    return style.save(spectrum_figure.figure(record, title=title, subtitle=subtitle), folder, stem)


def show(record: Mapping[str, Any], output: Output) -> None:
    """Print the trace and the layers of a record of `examine`."""
    if trace := record.get("trace"):
        print(f"\ntrace, {record['view']}: {trace['value']:.5g} ± {trace['standard_error']:.2g}")
    if layers := record.get("layers"):
        print(f"\nlayers, {record['view']}")
        show_readings("layer", layers, output)


def show_readings(header: str, readings: Mapping[str, Mapping[str, Any]], output: Output) -> None:
    """Print one row a measurement, with all k eigenvalues."""
    output.table([header, *_HEADERS], [[name, *_cells(reading)] for name, reading in readings.items()])


def _cells(reading: Mapping[str, Any]) -> list[str]:
    return [
        "  ".join(f"{value:.6g}" for value in reading.get("top", [reading["value"]])),
        *(
            "–" if reading[name] is None else f"{reading[name]:.1e}"
            for name in ("error", "bound", "residual")
        ),
        str(reading["products"]),
        f"{reading['seconds']:.2f}",
        "" if reading["converged"] else "not converged",
    ]
