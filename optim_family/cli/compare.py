"""Execute `optim-family compare`: from its options to the arguments of the figure."""

from collections.abc import Sequence
from typing import Any

from optim_family.errors import UsageError
from optim_family.runs.run import Run


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


def _medians(runs: Sequence[Run], names: Sequence[str] | None) -> dict[str, Any]:
    """The medians as runs, their ends, and names that say how many runs each is the median of."""
    from optim_family.analysis.seed_medians import seed_medians
    from optim_family.runs.readings_table import run_labels

    medians = seed_medians(runs)
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
