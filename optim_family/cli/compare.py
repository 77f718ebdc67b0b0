"""Execute `optim-family compare`: the arguments of the figure, and the table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optim_family.analysis import seed_table
from optim_family.analysis.missing_thresholds import missing_thresholds
from optim_family.cli import run_results
from optim_family.cli.output import Output, by_suffix
from optim_family.errors import UsageError
from optim_family.runs.readings_table import run_labels
from optim_family.runs.run import Run

if TYPE_CHECKING:
    from optim_family.analysis.seed_medians import SeedMedian


def figure_arguments(
    runs: Sequence[Run], *, seeds: str, panels: str | None, labels: str | None, with_start: bool
) -> dict[str, Any]:
    """The arguments of `run_figure.figure`.

    Raises:
        UsageError: there are more or fewer labels than curves.
    """
    arguments: dict[str, Any] = {
        "panels": panels and [name for name in panels.replace(" ", "").split(",") if name],
        "with_start": with_start,
        "names": labels and [name.strip() for name in labels.split(",")],
    }
    if seeds == "median":
        arguments |= _medians(runs, arguments["names"])
    curves = arguments.get("runs", runs)
    if labels and len(arguments["names"]) != len(curves):
        count = len(arguments["names"])
        raise UsageError(
            f"--labels has {count} names for {len(curves)} curves; give one for each, with commas"
        )
    return arguments


def show(
    runs: Sequence[Run],
    summaries: Sequence[Mapping[str, Any]],
    seeds: str,
    figure: Sequence[Path],
    output: Output,
) -> None:
    """Print a column for each run, or with `median` for each setting, and the paths of the figure."""
    if seeds == "each":
        return run_results.show(runs, summaries, figure, output)
    medians = _seed_medians(runs)
    names = run_labels([each.median for each in medians])
    summary_of = {run.path: summary for run, summary in zip(runs, summaries, strict=True)}
    groups = [[summary_of[run.path] for run in each.runs] for each in medians]
    settings = [
        {"setting": name, "runs": [str(run.path) for run in each.runs]}
        | {"numbers": {key: spread._asdict() for key, spread in seed_table.spreads(group).items()}}
        for name, each, group in zip(names, medians, groups, strict=True)
    ]
    value = {"runs": run_results.run_values(runs, summaries), "settings": settings}
    table, notes = seed_table.setting_rows(names, groups), [seed_table.NOTE, *missing_thresholds(runs)]
    run_results.show_table(value | {"figure": by_suffix(figure)}, table, notes, figure, output)


def _seed_medians(runs: Sequence[Run]) -> "list[SeedMedian]":
    from optim_family.analysis.seed_medians import seed_medians  # here: it imports numpy

    return seed_medians(runs)


def _medians(runs: Sequence[Run], names: Sequence[str] | None) -> dict[str, Any]:
    """The medians as runs, their ends, and names that say how many runs each is the median of."""
    medians = _seed_medians(runs)
    texts = run_labels([each.median for each in medians])
    counted = [
        f"{text}, median of {len(each.runs)}" if each.ends else text
        for text, each in zip(texts, medians, strict=True)
    ]
    return {
        "runs": [each.median for each in medians],
        "ends": [each.ends for each in medians],
        "names": names or counted,
    }
