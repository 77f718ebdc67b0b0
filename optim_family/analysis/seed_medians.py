"""The median of the seeds of one setting as a run, with the lowest and the highest values beside it."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, final

import numpy as np

from optim_family.analysis.study_table import settings
from optim_family.runs.columns import Array, Columns
from optim_family.runs.labels import arms
from optim_family.runs.run import Run

_MISSING: Final = "All-NaN slice encountered"


@final
class SeedMedian(NamedTuple):
    """The median, lowest and highest of every quantity at every step; `runs` are the seeds."""

    median: Run
    ends: tuple[Run, Run] | None  # None if there is one run
    runs: Sequence[Run]


def seed_medians(runs: Sequence[Run]) -> list[SeedMedian]:
    """One for each arm in each setting, in the order of the runs.

    At a step that some seeds lack, it is that of the others. A median reading has converged if all have.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run, *key in zip(runs, arms([run.spec for run in runs]), settings(runs), strict=True):
        groups.setdefault((key[0], key[1]), []).append(run)
    return [_median(group) for group in groups.values()]


def _median(group: Sequence[Run]) -> SeedMedian:
    if len(group) == 1:
        return SeedMedian(group[0], None, group)
    steps = np.unique(np.concatenate([run.columns["step"] for run in group]))
    names = dict.fromkeys(name for run in group for name in run.columns.names)
    tables = {name: np.array([_at(steps, run, name) for run in group]) for name in names}
    median, low, high = (
        _run(group[0], {name: _reduce(f, name, table) for name, table in tables.items()})
        for f in (np.nanmedian, np.nanmin, np.nanmax)
    )
    return SeedMedian(median, (low, high), group)


def _at(steps: Array, run: Run, name: str) -> Array:
    """A quantity at these steps, NaN where the run has no record."""
    values = np.full(len(steps), np.nan)
    values[np.searchsorted(steps, run.columns["step"])] = run.columns[name]
    return values


def _reduce(function: Callable[..., Any], name: str, table: Array) -> Array:
    reduce = np.nanmin if name.endswith(".converged") else function
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _MISSING, RuntimeWarning)
        result: Array = reduce(table, axis=0)
    return result


def _run(first: Run, columns: dict[str, Array]) -> Run:
    status, spec = {**first.status, "status": "done"}, {**first.spec, "seed": None}
    return replace(first, spec=spec, status=status, columns=Columns.from_arrays(columns), read=list)
