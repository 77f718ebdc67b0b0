"""What runs have left in their directories, also while they are being written."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from optim_family.errors import UsageError
from optim_family.runs.atomic_files import unseal
from optim_family.runs.record_log import read_log
from optim_family.runs.store import LOG, PROVENANCE, SPEC, STATUS, log_start, require_records, unseal_if_any

if TYPE_CHECKING:
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
