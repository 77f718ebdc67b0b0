"""More than one number on the screen: the options that ask for it, tables and the figure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, final

import rich_click as click

from optim_family.cli.output import Output
from optim_family.errors import UsageError

_Function = TypeVar("_Function", bound=Callable[..., Any])

_HEADERS: Final = ("sharpness", "error", "upper bound − value", "residual", "HVPs", "seconds", "")
_FLAGS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "--density": ("The density of all eigenvalues.", {"is_flag": True}),
    "--trace": ("The sum of all eigenvalues.", {"is_flag": True}),
    "--layers": (
        "Each layer by itself: names up to DEPTH parts, or each tensor.",
        {"is_flag": False, "flag_value": "all", "metavar": "[DEPTH]"},
    ),
}


@final
@dataclass(frozen=True)
class Looks:
    """What is wanted beside λ₁, by the names of `examining`, and how deep a layer's name is."""

    names: tuple[str, ...]
    depth: int | None = None

    @classmethod
    def taken(cls, given: dict[str, Any]) -> "Looks":
        """Out of the options of a command, which loses them; the layers are a depth, or `all`.

        Raises:
            UsageError: the depth is no whole number above 0.
        """
        density, trace, layers = (given.pop(name) for name in ("density", "trace", "layers"))
        if layers not in (None, "all") and not (layers.isdecimal() and int(layers)):
            raise UsageError(f"--layers: the depth must be a whole number above 0, not {layers}")
        asked = {"density": density, "trace": trace, "layers": layers is not None}
        return cls(
            tuple(name for name, wanted in asked.items() if wanted),
            None if layers in (None, "all") else int(layers),
        )


def looking(function: _Function) -> _Function:
    """The options that ask for more than one number."""
    for flag, (text, kind) in reversed(list(_FLAGS.items())):
        function = click.option(flag, help=text, panel="More than λ₁", **kind)(function)
    return function


def draw(record: Mapping[str, Any], folder: Path, stem: str, title: str, subtitle: str) -> list[Path]:
    """Draw a record of `examine` as STEM.svg and STEM.png; their paths, none if there is nothing to draw."""
    from optim_family.figures import spectrum_figure, style

    if not record.keys() & spectrum_figure.DRAW.keys():
        return []
    return style.save(spectrum_figure.figure(record, title=title, subtitle=subtitle), folder, stem)


def show(record: Mapping[str, Any], output: Output) -> None:
    """The trace and the layers of a record of `examine`, as text."""
    if trace := record.get("trace"):
        print(f"\ntrace, {record['view']}: {trace['value']:.5g} ± {trace['standard_error']:.2g}")
    if layers := record.get("layers"):
        print(f"\nlayers, {record['view']}")
        readings("layer", layers, output)


def readings(first: str, found: Mapping[str, Mapping[str, Any]], output: Output) -> None:
    """One row a reading; all k values of it where there are several."""
    output.table([first, *_HEADERS], [[name, *_cells(reading)] for name, reading in found.items()])


def _cells(reading: Mapping[str, Any]) -> list[str]:
    return [
        "  ".join(f"{value:.6g}" for value in reading.get("top", [reading["value"]])),
        f"{reading['error']:.1e}",
        f"{reading['bound']:.1e}",
        f"{reading['residual']:.1e}",
        str(reading["products"]),
        f"{reading['seconds']:.2f}",
        "" if reading["converged"] else "not converged",
    ]
