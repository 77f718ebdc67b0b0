"""Runs read back: one row a reading, one summary a run, one table of several runs.

A ratio is the median of value / threshold from 100 % training accuracy on, or over the last half of a run.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optim_family.runs import readings_table
from optim_family.runs.labels import labels
from optim_family.runs.run import Run, column, find_runs, read_run, series, views

if TYPE_CHECKING:
    import pandas

RECORD_FIELDS = (
    "step tau train_loss peak_loss train_accuracy test_accuracy "
    "weight_norm gradient_norm effective_lr lr elapsed"
).split()
READING_FIELDS = "value threshold ratio residual error bound products seconds converged".split()


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
    """The table of `load_runs`, of these runs."""
    import pandas

    told = list(dict.fromkeys(name for run in runs for name in _told(run)))
    rows = [row for run in runs for row in _rows(run)]
    table = pandas.DataFrame(rows, columns=[*told, *RECORD_FIELDS, "view", *READING_FIELDS])
    return table.astype(dict.fromkeys([*RECORD_FIELDS, *READING_FIELDS], float)).astype({"step": int})


def _told(run: Run) -> dict[str, Any]:
    """What is the same in every row of a run."""
    spec = {name: value for name, value in run.spec.items() if name not in ("hyper", "views")}
    hyper = {f"hyper.{name}": value for name, value in run.spec["hyper"].items()}
    return {"run": str(run.path), "status": run.status.get("status"), **spec, **hyper}


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    """A record without any view, such as the only one of a run that diverged at once, has a row too."""
    names: Sequence[str | None] = views(run) or [None]
    for view in names:
        numbers = {name: column(run, name) for name in RECORD_FIELDS}
        numbers |= {name: column(run, f"{view}.{name}") for name in READING_FIELDS}
        for row in zip(*numbers.values(), strict=True):
            yield {**_told(run), "view": view, **dict(zip(numbers, row, strict=True))}


def run_labels(runs: Sequence[Run]) -> list[str]:
    """`labels` of runs; what their specifications do not tell apart is named by its folder."""
    folders = [run.path.name for run in runs]
    if len(set(folders)) < len(folders):
        folders = [str(run.path) for run in runs]
    return labels([run.spec for run in runs], folders)


def readings(runs: Sequence[Run]) -> "pandas.DataFrame":
    """One row for each record and view: `run`, the record, `view`, the reading; NaN where there is none."""
    import numpy as np
    import pandas

    parts = [(run, view) for run in runs for view in views(run)]
    lengths = [run.columns.count for run, _ in parts]

    def joined(of: str, name: str) -> Any:
        return np.concatenate([[], *(series(run, of.format(view) + name) for run, view in parts)])

    columns = {
        "run": np.repeat([run.path.name for run, _ in parts], lengths),
        **{name: joined("", name) for name in readings_table.RECORD_FIELDS},
        "view": np.repeat([view for _, view in parts], lengths),
        **{name: joined("{}.", name) for name in readings_table.READING_FIELDS},
    }
    return pandas.DataFrame(columns)
