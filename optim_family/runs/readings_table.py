"""The measurements of several runs as one table: a row for each record and view."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optim_family.runs.labels import flat, labels
from optim_family.runs.run import ALONG, Run, find_runs, read_run, series, views

if TYPE_CHECKING:
    import pandas


def load_runs(path: str | Path) -> "pandas.DataFrame":
    """Every measurement of every run in a folder and below it: one row for each record and view.

    Args:
        path: a run directory, or a folder above run directories.

    Returns:
        The columns `run` (its folder) and `status`; the specification, `optimizer`, `model`, …,
        `hyper.lr`, …, and `config.NAME` of a `Recorder`; every number of the records, `step`, `tau`,
        `train_loss`, …; then `view` and every number of its measurements, `value`, `threshold`, `ratio`, …,
        `converged` being 1 or 0. Numbers have the units of the record, and are floats except for `step`;
        NaN if a number is not finite, a run does not have it, or a view does not apply.

    Raises:
        UsageError: there is no run directory.
        CorruptError: one of them is damaged.
    """
    return frame([read_run(folder) for folder in find_runs(Path(path))])


def frame(runs: Sequence[Run]) -> "pandas.DataFrame":
    """The table of `load_runs` for these runs; a record without any view has a row too."""
    import pandas

    parts = [(run, view) for run in runs if run.columns.count for view in (tuple(views(run)) or (None,))]
    names = dict.fromkeys(name for run in runs for name in _run_columns(run))
    constants = pandas.DataFrame([_run_columns(run) for run, _ in parts], columns=list(names))
    rows = _repeat(range(len(parts)), parts).astype(int)
    constants = constants.iloc[rows].reset_index(drop=True)
    return pandas.concat([constants, _readings(parts).astype({"step": int})], axis="columns")


def readings(runs: Sequence[Run]) -> "pandas.DataFrame":
    """One row for each record and view: `run`, the record, `view`, the measurement; NaN if missing."""
    parts = [(run, view) for run in runs for view in views(run)]
    table = _readings(parts)
    table.insert(0, "run", _repeat([run.path.name for run, _ in parts], parts))
    return table


def _readings(parts: Sequence[tuple[Run, str | None]]) -> "pandas.DataFrame":
    """The record, `view` and the measurement of these runs and views, one after another."""
    import numpy as np
    import pandas

    def concatenate(field: str) -> Any:
        return np.concatenate([[], *(series(run, field.format(view)) for run, view in parts)])

    names = dict.fromkeys(name for run, _ in parts for name in run.columns.names)
    records = {
        name: concatenate(name)
        for name in ("step", *names)
        if name != ALONG and name.partition(".")[0] != "views"
    }
    measured = dict.fromkeys(name.split(".", 2)[2] for name in names if name.count(".") > 1)
    view = {"view": _repeat([view for _, view in parts], parts)}
    return pandas.DataFrame(records | view | {field: concatenate(f"{{}}.{field}") for field in measured})


def _repeat(values: Sequence[Any], parts: Sequence[tuple[Run, str | None]]) -> Any:
    """Each value, repeated for every record of its run."""
    import numpy as np

    return np.repeat(np.array(values, dtype=object), [run.columns.count for run, _ in parts])


def _run_columns(run: Run) -> dict[str, Any]:
    """The columns that are constant over a run."""
    constants = {name: value for name, value in flat(run.spec).items() if name != "views"}
    return {"run": str(run.path), "status": run.status.get("status"), **constants}


def run_labels(runs: Sequence[Run]) -> list[str]:
    """`labels` of runs; runs with equal specifications are distinguished by their folders."""
    folders = [run.path.name for run in runs]
    if len(set(folders)) < len(folders):
        folders = [str(run.path) for run in runs]
    return labels([run.spec for run in runs], folders)
