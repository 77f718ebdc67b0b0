"""Reads run directories, also while they are being written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from optim_family.errors import UsageError, unknown
from optim_family.runs.atomic_files import unseal
from optim_family.runs.layout import LOG, PROVENANCE, SPEC, STATUS
from optim_family.runs.record_log import read_log
from optim_family.runs.store import log_start, require_records, unseal_if_any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optim_family.runs.columns import Columns

FINISHED: Final = ("done", "diverged")  # statuses of runs that are never continued
ALONG: Final = "along"  # field of a record with the measurements along the last update


@final
@dataclass(frozen=True)
class Run:
    """The contents of a run directory; `columns` are the numbers of its records."""

    path: Path
    spec: dict[str, Any]
    status: dict[str, Any]
    provenance: dict[str, Any]
    columns: "Columns" = field(repr=False, compare=False)
    read: Callable[[], list[dict[str, Any]]] = field(repr=False, compare=False)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The records of the log in order, read at the first access."""
        return self.read()


def read_run(path: Path) -> Run:
    """Read a run directory, also while it is being written: no lock is needed.

    Raises:
        UsageError: it is not a run directory.
        CorruptError: a file is damaged; the message names it, and the line of the log.
    """
    from optim_family.runs.columns import Columns

    if not path.exists():
        raise UsageError(f"there is no folder {path}; give a folder made by `run`")
    if not (path / SPEC).is_file():
        raise UsageError(f"{path} is not a run directory: it has no {SPEC}; give a folder made by `run`")
    spec, provenance = unseal(path / SPEC), unseal_if_any(path / PROVENANCE)
    status = unseal_if_any(path / STATUS)  # before the log, which may grow in between
    blocks = partial(read_log, path / LOG, log_start(path))
    columns = Columns(blocks())
    require_records(path, status, columns.count)
    # The log may have grown by the time its records are read.
    return Run(
        path,
        *(spec, status, provenance, columns),
        read=lambda: list(islice(chain.from_iterable(blocks()), columns.count)),
    )


def find_runs(path: Path) -> list[Path]:
    """The run directories in a folder and below it, itself included, sorted.

    Raises:
        UsageError: there are none.
    """
    folders = sorted(file.parent for file in path.rglob(SPEC))
    if not folders:
        raise UsageError(f"there is no run directory in {path}; give a folder in which `run` has written")
    return folders


def first_fit_index(run: Run) -> int | None:
    """The index of the first record at 100 % training accuracy."""
    return first_index(series(run, "train_accuracy") >= 1)


def first_index(mask: "NDArray[np.bool_]") -> int | None:
    """The first index at which the mask is true."""
    return int(mask.argmax()) if mask.any() else None


def views(run: Run) -> list[str]:
    """The views of a run in the order of its records, including those that do not apply."""
    names = (name.split(".") for name in run.columns.names)
    return [rest[0] for first, *rest in names if first == "views" and len(rest) == 1]


def column(run: Run, name: str) -> list[float]:
    """One quantity at every record, `train_loss`, `spherical.ratio` or `along.rotation`; NaN if missing."""
    values: list[float] = series(run, name).tolist()
    return values


def series(run: Run, name: str) -> "NDArray[np.float64]":
    """`column` as a read-only array, [records]."""
    of_view = "." in name and not name.startswith(f"{ALONG}.")
    return run.columns[f"views.{name}" if of_view else name]


def has_along(run: Run) -> bool:
    """Whether a record has measurements along the update before it."""
    return any(name.startswith(f"{ALONG}.") for name in run.columns.names)


def with_test_set(run: Run, name: str) -> Run:
    """The run with a further test set in the place of the first, which takes the place of the further one.

    Loss and accuracy change places: `test_accuracy` is that of the images `x_test_NAME`. Its records stay.

    Raises:
        UsageError: the run has no such test set.
    """
    from optim_family.runs.columns import Columns

    names = run.columns.names
    places = {f"test_{mean}": f"test_{mean}_{name}" for mean in ("loss", "accuracy")}
    if places["test_accuracy"] not in names:
        prefix = "test_accuracy_"
        known = [each.removeprefix(prefix) for each in names if each.startswith(prefix)]
        raise UsageError(f"{run.path}: {unknown('further test set', name, known)}")
    places |= {further: first for first, further in places.items()}
    return replace(
        run, columns=Columns.from_arrays({each: run.columns[places.get(each, each)] for each in names})
    )


def last_step(runs: Iterable[Run]) -> int:
    """The last recorded step of all runs, at least 1."""
    return max((int(series(run, "step").max(initial=0)) for run in runs), default=0) or 1
