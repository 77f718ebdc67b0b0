"""The table of settings: one column a setting, one row a quantity, its median and range over the seeds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final, NamedTuple, final

from optim_family.analysis.run_summary import ALONG_FIELDS, ALONG_LIMITS
from optim_family.runs.run import ALONG
from optim_family.sharpness.views import LOWER_BOUND, VIEWS

NOTE: Final = "Each number is the median of the runs of a setting (lowest to highest)."
_COURSE: Final = {"at_fit": "then", "last": "end", "peak": "peak"}  # as in the table of runs


@final
class Spread(NamedTuple):
    """The median, the lowest and the highest value of a quantity; n runs have it."""

    median: float
    lowest: float
    highest: float
    n: int


@final
class Quantity(NamedTuple):
    """A row: its name, the key of the quantity in `spreads`, the format of its numbers, and their factor."""

    name: str
    key: str
    form: str
    factor: float = 1.0


def spreads(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """Every number of the summaries of a setting's runs, by its keys joined by dots: `views.raw.ratio`.

    A ratio is the median of a run, so that its spread is the median and the range of these medians.

    Args:
        summaries: `run_summary.summary` of each run.
    """
    values: dict[str, list[float]] = {}
    for name, number in (pair for each in summaries for pair in _numbers(each)):
        values.setdefault(name, []).append(number)
    return {name: Spread(median(v), min(v), max(v), len(v)) for name, v in values.items()}


def setting_rows(
    names: Sequence[str], groups: Sequence[Sequence[Mapping[str, Any]]]
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of plain text; a quantity that no setting has is left out.

    Args:
        names: of the settings.
        groups: the summaries of the runs of each setting.
    """
    columns = [spreads(group) for group in groups]
    known = [row for row in _quantities(groups) if any(row.key in column for column in columns)]
    rows = [["runs", *(str(len(group)) for group in groups)], ["status", *map(_statuses, groups)]]
    for row in known:
        cells = [_cell(c.get(row.key), len(g), row) for c, g in zip(columns, groups, strict=True)]
        rows.append([row.name, *cells])
    return ["setting", *names], rows


def _numbers(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield prefix + key, value


def _quantities(groups: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[Quantity]:
    """All rows, in the order of the table of runs."""
    summaries = [summary for group in groups for summary in group]
    yield Quantity("steps", "steps", ",.0f")
    yield Quantity("100 % training accuracy at step", "fit_step", ",.0f")
    for key, name in {"_at_fit": "then", "": "end", "_best": "best"}.items():
        yield Quantity(f"test accuracy, %: {name}", f"test_accuracy{key}", ".1f", 100)
    yield Quantity("training loss", "train_loss", ".3g")
    for view in dict.fromkeys(view for summary in summaries for view in summary["views"]):
        bound = f" ({LOWER_BOUND})" if view in VIEWS and VIEWS[view].generalized else ""
        yield from _course(f"{view}{bound}", f"views.{view}")
        yield Quantity(f"{view}{bound} / threshold", f"views.{view}.ratio", ".2f")
        yield Quantity(f"{view} / plateau of small batches", f"views.{view}.small_batches.ratio", ".2f")
    for field, (name, ratio) in ALONG_FIELDS.items():
        yield from _course(name, f"{ALONG}.{field}")
        if ratio:
            yield Quantity(f"{name} / {ALONG_LIMITS[field]}", f"{ALONG}.{field}.ratio", ".2f")
    yield Quantity("HVPs", "products", ",.0f")
    yield Quantity("measuring, s", "seconds", ".1f")
    yield Quantity("unconverged readings", "unconverged", ".0f")


def _course(name: str, key: str) -> Iterator[Quantity]:
    yield from (Quantity(f"{name}: {text}", f"{key}.{field}", ".4g") for field, text in _COURSE.items())


def _statuses(group: Sequence[Mapping[str, Any]]) -> str:
    """`done`, or how many runs have each status: `2 done, 1 diverged`."""
    counts = Counter(summary["status"] or "–" for summary in group)
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{n} {s}" for s, n in counts.items())


def _cell(spread: Spread | None, runs: int, row: Quantity) -> str:
    """`1.02 (0.98 to 1.1, n = 2)`: n if some runs lack the number, no range if all numbers read alike."""
    if spread is None:
        return "–"
    middle, lowest, highest = (format(row.factor * number, row.form) for number in spread[:3])
    spread_text = [] if lowest == highest else [f"{lowest} to {highest}"]
    details = ", ".join(spread_text + [f"n = {spread.n}"] * (spread.n < runs))
    return f"{middle} ({details})" if details else middle
