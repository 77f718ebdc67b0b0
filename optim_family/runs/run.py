"""What runs have left in their directories, also while they are being written."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from optim_family.errors import UsageError
from optim_family.runs.atomic_files import unseal
from optim_family.runs.layout import LOG, PROVENANCE, SPEC, STATUS
from optim_family.runs.record_log import read_log
from optim_family.runs.store import log_start, require_records, unseal_if_any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optim_family.runs.columns import Columns


@final
@dataclass(frozen=True)
class Run:
    """What a run directory holds; `columns` are the numbers of its records."""

    path: Path
    spec: dict[str, Any]
    status: dict[str, Any]
    provenance: dict[str, Any]
    columns: "Columns" = field(repr=False, compare=False)
    read: Callable[[], list[dict[str, Any]]] = field(repr=False, compare=False)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Those of its log, in order, which are read when first asked for."""
        return self.read()


def read_run(path: Path) -> Run:
    """Read a run directory, also while it is being written: no lock is needed.

    Raises:
        UsageError: it is not a run directory.
        CorruptError: something in it is damaged; the message names the file, and the line of the log.
    """
    from optim_family.runs.columns import Columns

    if not (path / SPEC).is_file():
        raise UsageError(f"{path} is not a run directory, for it has no {SPEC}; name a folder made by `run`")
    spec, provenance = unseal(path / SPEC), unseal_if_any(path / PROVENANCE)
    status = unseal_if_any(path / STATUS)  # before the log, which may grow meanwhile
    read = partial(read_log, path / LOG, log_start(path))
    columns = Columns(read())
    require_records(path, status, columns.count)
    return Run(path, spec, status, provenance, columns, partial(_first, columns.count, read))


def _first(count: int, read: Callable[[], Iterator[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """So many records of a log that may have grown meanwhile."""
    return list(islice(chain.from_iterable(read()), count))


def find_runs(path: Path) -> list[Path]:
    """The run directories in a folder and below it, itself included, sorted.

    Raises:
        UsageError: there are none.
    """
    found = sorted(file.parent for file in path.rglob(SPEC))
    if not found:
        raise UsageError(f"there is no run directory in {path}; name a folder in which `run` has written")
    return found


def first_fit_index(run: Run) -> int | None:
    """The index of the first record at 100 % training accuracy."""
    return first_index(series(run, "train_accuracy") >= 1)


def first_index(there: "NDArray[np.bool_]") -> int | None:
    """The first index at which something is so."""
    return int(there.argmax()) if there.any() else None


def views(run: Run) -> list[str]:
    """The views of a run, those that do not apply included, in the order of its records."""
    names = (name.split(".") for name in run.columns.names)
    return [rest[0] for first, *rest in names if first == "views" and len(rest) == 1]


def column(run: Run, name: str) -> list[float]:
    """One quantity at every record, `train_loss` or `spherical.ratio`; NaN where there is none."""
    found: list[float] = series(run, name).tolist()
    return found


def series(run: Run, name: str) -> "NDArray[np.float64]":
    """`column` as an array, [records], which is shared and not to be written."""
    return run.columns[f"views.{name}" if "." in name else name]


def last_step(runs: Iterable[Run]) -> int:
    """The last step that any of them has recorded, at least 1."""
    return max((int(series(run, "step").max(initial=0)) for run in runs), default=0) or 1
