"""Finished runs: the table on the screen, the figure and the evidence of the figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import rich_click as click

from optim_family.analysis import run_summary
from optim_family.analysis.missing_thresholds import missing_thresholds
from optim_family.cli.output import Output, Row, add_options, by_suffix, joined, write_json
from optim_family.errors import UsageError, unknown
from optim_family.figures import overlays
from optim_family.runs.atomic_files import make_folder, replace_atomically
from optim_family.runs.run import Run

_FORMATS: Final = ("svg", "png", "pdf")
_option = partial(click.option, panel="Figure")


def _formats(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(text.replace(" ", "").split(",")))
    for name in formats:
        if name not in _FORMATS:
            raise UsageError(unknown("format", name, _FORMATS))
    return formats


def _inches(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        width = float(text)
    except ValueError:
        width = math.nan
    if not 2 <= width <= 40:
        raise UsageError(f"--width: it must be inches as a number from 2 to 40, such as 3.25, not {text}")
    return width


# The options of a figure of runs, which a command passes to `FigureOptions.from_options`.
figure_options = add_options(
    _option(
        "--overlay",
        "overlays",
        metavar="NAMES",
        callback=lambda context, option, text: None if text is None else overlays.parse_overlays(text),
        help=f"Predictions to draw: any of {','.join(overlays.NAMES)}, or all, or none (default: all).",
    ),
    _option("--html", is_flag=True, help="Also write an interactive page, one file that needs no network."),
    _option(
        "--format",
        "formats",
        metavar="NAMES",
        default="svg,png",
        show_default=True,
        callback=_formats,
        help=f"File types of the figure, of {','.join(_FORMATS)}; a PDF has its fonts inside.",
    ),
    _option(
        "--width",
        metavar="INCHES",
        callback=_inches,
        help="Width of the figure for a paper: 3.25 is a column, 6.75 a page; without a heading. "
        "For a shorter figure draw fewer panels: compare --panels.",
    ),
    _option(
        "--style",
        metavar="STYLE",
        help="A .mplstyle file, or a style of matplotlib, to go first.",
    ),
)


@final
@dataclass(frozen=True)
class FigureOptions:
    """How to draw runs; `overlays` is None if none were named."""

    overlays: tuple[str, ...] | None
    formats: tuple[str, ...]
    width: float | None
    style: str | None
    html: bool

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> "FigureOptions":
        """Take the values of `figure_options` out of the options of a command."""
        return cls(**{name: options.pop(name) for name in cls.__dataclass_fields__})

    @property
    def given(self) -> bool:
        """Whether one of them changes the figure."""
        return (self.overlays, self.width, self.style) != (None, None, None)

    def files(self, folder: Path, stem: str) -> list[Path]:
        """The files of a figure with this stem."""
        return [folder / f"{stem}.{ending}" for ending in (*self.formats, *(["html"] if self.html else []))]


def draw(
    runs: Sequence[Run],
    summaries: Sequence[Mapping[str, Any]],
    folder: Path,
    stem: str,
    options: FigureOptions,
    arguments: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the figure, and the page if wanted; return the paths.

    Args:
        runs: at least one.
        summaries: `run_summary.summary` of each.
        folder: made if it does not exist.
        stem: of the names of the files.
        options: of the command.
        arguments: of `run_figure.figure`, with `runs` where it draws others.

    Raises:
        UsageError: there is no such style, or the user may not write the folder.
    """
    from optim_family.figures import run_figure, run_page, style

    names = overlays.NAMES if options.overlays is None else options.overlays
    figure = {"runs": runs, "overlays": names, "width": options.width, **(arguments or {})}
    make_folder(folder)
    with style.own_style(options.style):
        drawn = run_figure.figure(**figure)
        style.save(drawn, folder, stem, options.formats)
        if options.html:
            title = run_figure.title_of(runs)
            page = run_page.run_page(runs, summaries, title=title, figures=[(title, drawn)])
            replace_atomically(folder / f"{stem}.html", page)
    return options.files(folder, stem)


def write_evidence(runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write specification, provenance and summary of the runs in a figure."""
    evidence = [
        {"run": run.path.name, "spec": run.spec, "provenance": run.provenance, "summary": summary}
        for run, summary in zip(runs, summaries, strict=True)
    ]
    write_json(path, evidence)


def show(
    runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]], figure: Sequence[Path], output: Output
) -> None:
    """Print the summaries and the paths of the figure."""
    value = {"runs": run_values(runs, summaries), "figure": by_suffix(figure)}
    show_table(value, run_summary.summary_rows(runs, summaries), missing_thresholds(runs), figure, output)


def run_values(runs: Sequence[Run], summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The path and the summary of each run, as JSON."""
    return [{"path": str(run.path), **each} for run, each in zip(runs, summaries, strict=True)]


def show_table(
    value: Any, table: tuple[Row, Sequence[Row]], notes: Sequence[str], figure: Sequence[Path], output: Output
) -> None:
    """Print a table of runs, the notes below it, and the paths of the figure; with --json the value."""
    output.result_of_runs(value, *table)
    if not output.json:
        paragraphs = ["\n".join(notes)] * bool(notes) + [f"figure: {joined(figure)}"]
        print("\n" + "\n\n".join(paragraphs))
