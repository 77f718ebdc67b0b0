"""The numbers of runs for the interactive figure: columns as JSON, thinned where a page would be too large.

    runs    [{name, view, columns: {step: […], "spherical.value": […], …}, fit, unstable, …}]
    groups  [{key, color, dash, runs: [index, …]}], the seeds of one arm in one setting

A number that is missing or not finite is null.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from optim_family.analysis.study_table import EDGE, destabilisations, first_view, own_view
from optim_family.figures.curves import Array, extreme_indices
from optim_family.figures.overlays import mean_loss, steepest_drift
from optim_family.figures.run_figure import usual_panels
from optim_family.figures.style import COLOURS, DASHES
from optim_family.runs.labels import compact
from optim_family.runs.run import ALONG, Run, first_fit_index, series, views
from optim_family.sharpness.views import AMBIENT, VIEWS, label

Indices = NDArray[np.integer[Any]]
RECORDS: Final = 20_000  # of all runs together; their JSON has some 200 bytes each
_RECORD: Final = ("step", "tau", "elapsed", "train_loss", "peak_loss", "train_accuracy", "test_accuracy")
_READING: Final = {
    "value": 6,
    "threshold": 6,
    "ratio": 6,
    "error": 3,
    "bound": 3,
    "products": 6,
    "converged": 1,
    "small_batch_threshold": 6,
    "small_batch_ratio": 6,
}
_ALONG: Final = (
    *("curvature", "smoothness", "smoothness_ratio", "critical", "critical_ratio"),
    *("rotation", "equilibrium_rotation"),
)
# Thinning keeps the highest and lowest of these in each interval.
_SHAPE: Final = ("train_loss", "peak_loss", "test_accuracy", "train_accuracy")


def figure_data(runs: Sequence[Run], arms: Sequence[str], settings: Sequence[str]) -> dict[str, Any]:
    """The content of the interactive figure.

    Args:
        runs: broken off, running or without a record too.
        arms: of every run, as `labels.arms` returns them.
        settings: of every run, as `study_table.settings` returns them.
    """
    arm_numbers, setting_numbers = _numbered(arms), _numbered(settings)
    groups, drawn = list[dict[str, Any]](), dict[int, dict[str, Any]]()
    for (arm, setting), members in _groups(runs, arms, settings).items():
        records = _kept_records([runs[i] for i in members], RECORDS // len(runs))
        for i, name, kept in zip(members, _names(runs, members), records, strict=True):
            drawn[i] = _run(runs[i], name, kept)
        style = _style(arm_numbers[arm], setting_numbers[setting], len(setting_numbers))
        groups.append({"arm": arm, "setting": setting, "runs": members, **style})
    names = dict.fromkeys(name for run in runs for name in views(run))
    shown = sum(len(run["columns"].get("step", ())) for run in drawn.values())
    return {
        "runs": [drawn[i] for i in range(len(runs))],
        "groups": groups,
        "settings": list(setting_numbers),
        "views": {name: label(name) for name in names},
        "units": {name: view.unit for name, view in VIEWS.items()},
        "edge": EDGE,
        "panels": usual_panels(runs),
        "thinned": sum(run.columns.count for run in runs) - shown,
    }


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _groups(
    runs: Sequence[Run], arms: Sequence[str], settings: Sequence[str]
) -> dict[tuple[str, str], list[int]]:
    """The indices of the runs of each arm and setting, by seed."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, pair in enumerate(zip(arms, settings, strict=True)):
        groups.setdefault(pair, []).append(i)
    return {pair: sorted(group, key=lambda i: runs[i].spec["seed"] or 0) for pair, group in groups.items()}


def _style(arm: int, setting: int, settings: int) -> dict[str, Any]:
    """The colour is that of the arm; the line style that of the only setting's arm, or of setting and arm."""
    dash = DASHES[(arm if settings == 1 else setting + settings * (arm // len(COLOURS))) % len(DASHES)]
    lengths = [] if dash == "-" else [2 * length for length in dash[1]]
    return {"color": COLOURS[arm % len(COLOURS)], "dash": lengths}


def _names(runs: Sequence[Run], group: Sequence[int]) -> list[str]:
    """The names of runs within their group: seeds, or folders where the seeds are not different."""
    seeds = [runs[i].spec["seed"] for i in group]
    if None in seeds or len(set(seeds)) < len(seeds):
        return [runs[i].path.name for i in group]
    return [f"seed {compact(seed)}" for seed in seeds]


def _run(run: Run, name: str, kept: Indices) -> dict[str, Any]:
    """One run, its records reduced to those of these indices."""
    at = {int(index): position for position, index in enumerate(kept)}
    fit = first_fit_index(run)
    return {
        "name": name,
        "view": first_view(run, AMBIENT),
        "own": own_view(run),
        "status": str(run.status.get("status", "–")),
        "columns": {name: _numbers(values[kept], digits) for name, values, digits in _columns(run)},
        "fit": at.get(-1 if fit is None else fit),
        "unstable": [at[i] for i in destabilisations(run) if i in at],
    }


def _columns(run: Run) -> Iterable[tuple[str, Array, int]]:
    """Name, values and significant digits of each column that has a number."""
    columns = [(name, series(run, name), 6) for name in _RECORD]
    for view in views(run):
        columns += [(f"{view}.{f}", series(run, f"{view}.{f}"), digits) for f, digits in _READING.items()]
        small, threshold = (series(run, f"{view}.{f}") for f in ("small_batch_threshold", "threshold"))
        columns += [(f"{view}.small_batch_plateau", small / threshold, 6)]
    columns += [(f"{ALONG}.{name}", series(run, f"{ALONG}.{name}"), 6) for name in _ALONG]
    columns += [("drift", _prediction(run, steepest_drift(run)), 6)]
    columns += [("mean_loss", _prediction(run, mean_loss(run)), 6)]
    return [column for column in columns if np.isfinite(column[1]).any()]


def _prediction(run: Run, points: Array) -> Array:
    """A prediction (step, y) at every record, [records]; NaN where it does not apply."""
    values = dict(zip(*points.tolist(), strict=True)) if points.size else {}
    return np.array([values.get(step, math.nan) for step in series(run, "step").tolist()])


def _numbers(values: Array, digits: int) -> list[float | None]:
    return [_short(x, digits) if math.isfinite(x) else None for x in values.tolist()]


def _short(x: float, digits: int) -> float:
    """The number with so many digits, as a whole number if it is one, which is shorter in JSON."""
    rounded = float(f"{x:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _kept_records(runs: Sequence[Run], most: int) -> list[Indices]:
    """The indices of the records to keep of each run, `most` on average: the same steps of all, and marks."""
    if all(run.columns.count <= most for run in runs):
        return [np.arange(run.columns.count) for run in runs]
    steps = [series(run, "step") for run in runs]
    shapes = [_shape(run) for run in runs]
    intervals = max(1, most // 2)
    while True:
        chosen = [s[extreme_indices(shape, intervals)] for s, shape in zip(steps, shapes, strict=True)]
        marks = [s[_marked(run)] for s, run in zip(steps, runs, strict=True)]
        union = np.unique(np.concatenate([*chosen, *marks]))
        if len(union) <= most or intervals == 1:
            return [np.flatnonzero(np.isin(s, union)) for s in steps]
        intervals //= 2


def _shape(run: Run) -> Array:
    """(step, y, …) whose extremes a thinned curve keeps, [1 + k, records]."""
    ys = [series(run, name) for name in (*_SHAPE, *(f"{view}.value" for view in views(run)))]
    present = [np.where(np.isfinite(y), y, np.nanmedian(y)) for y in ys if np.isfinite(y).any()]
    return np.array([series(run, "step"), *present])


def _marked(run: Run) -> list[int]:
    fit = first_fit_index(run)
    return [*([] if fit is None else [fit]), *destabilisations(run)]
