"""The readings of several runs as one table: a row for each record and view."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optim_family.runs.labels import labels
from optim_family.runs.layout import READING_FIELDS, RECORD_FIELDS
from optim_family.runs.run import Run, find_runs, read_run, series, views

if TYPE_CHECKING:
    import pandas


def load_runs(path: str | Path) -> "pandas.DataFrame":
    """Every reading of every run in a folder and below it: one row for each record and view.

    Args:
        path: a run directory, or a folder above run directories.

    Returns:
        The columns `run` (its folder) and `status`; the specification, `optimizer`, `model`, … and
        `hyper.lr`, …; the record, `step`, `tau`, `train_loss`, …; then `view` and its reading, `value`,
        `threshold`, `ratio`, …, `converged` being 1 or 0. Records and readings are in their own units, and
        floats but for `step`; NaN where a number was not finite or a view does not apply.

    Raises:
        UsageError: there is no run directory.
        CorruptError: one of them is damaged.
    """
    return frame([read_run(folder) for folder in find_runs(Path(path))])


def frame(runs: Sequence[Run]) -> "pandas.DataFrame":
    """The table of `load_runs`, of these runs.

    A record without any view, such as the only one of a run that diverged at once, has a row too.
    """
    import pandas

    parts = [(run, view) for run in runs if run.columns.count for view in (tuple(views(run)) or (None,))]
    names = dict.fromkeys(name for run in runs for name in _run_columns(run))
    constants = pandas.DataFrame([_run_columns(run) for run, _ in parts], columns=list(names))
    rows = _repeat(range(len(parts)), parts).astype(int)
    constants = constants.iloc[rows].reset_index(drop=True)
    return pandas.concat([constants, _readings(parts).astype({"step": int})], axis="columns")


def readings(runs: Sequence[Run]) -> "pandas.DataFrame":
    """One row for each record and view: `run`, the record, `view`, the reading; NaN where there is none."""
    parts = [(run, view) for run in runs for view in views(run)]
    table = _readings(parts)
    table.insert(0, "run", _repeat([run.path.name for run, _ in parts], parts))
    return table


def _readings(parts: Sequence[tuple[Run, str | None]]) -> "pandas.DataFrame":
    """The record, `view` and the reading of these views of runs, below each other."""
    import numpy as np
    import pandas

    def joined(prefix: str, field: str) -> Any:
        return np.concatenate([[], *(series(run, prefix.format(view) + field) for run, view in parts)])

    return pandas.DataFrame(
        {
            **{field: joined("", field) for field in RECORD_FIELDS},
            "view": _repeat([view for _, view in parts], parts),
            **{field: joined("{}.", field) for field in READING_FIELDS},
        }
    )


def _repeat(values: Sequence[Any], parts: Sequence[tuple[Run, str | None]]) -> Any:
    """Each value as often as its run has records."""
    import numpy as np

    return np.repeat(np.array(values, dtype=object), [run.columns.count for run, _ in parts])


def _run_columns(run: Run) -> dict[str, Any]:
    """What is the same in every row of a run."""
    spec = {name: value for name, value in run.spec.items() if name not in ("hyper", "views")}
    hyper = {f"hyper.{name}": value for name, value in run.spec["hyper"].items()}
    return {"run": str(run.path), "status": run.status.get("status"), **spec, **hyper}


def run_labels(runs: Sequence[Run]) -> list[str]:
    """`labels` of runs; runs with equal specifications are distinguished by their folders."""
    folders = [run.path.name for run in runs]
    if len(set(folders)) < len(folders):
        folders = [str(run.path) for run in runs]
    return labels([run.spec for run in runs], folders)
