"""What a run has recorded, by columns, each looked for once: a run may have a million records."""

import math
from collections.abc import Callable, Iterable
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from optim_family.store import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")


def fitted(run: Run) -> int | None:
    """The index of the first record at 100 % training accuracy."""
    return first_index(series(run, "train_accuracy") >= 1)


def first_index(there: "NDArray[np.bool_]") -> int | None:
    """The first index at which something is so."""
    return int(there.argmax()) if there.any() else None


def views(run: Run) -> list[str]:
    """The views of a run, those that do not apply included, in the order of its records."""
    return list(_once(run, "names", lambda: _names(run)))


def column(run: Run, name: str) -> list[float]:
    """One quantity at every record, `train_loss` or `spherical.ratio`; NaN where there is none."""
    found: list[float] = series(run, name).tolist()
    return found


def series(run: Run, name: str) -> "NDArray[np.float64]":
    """`column` as an array, [records], which is shared and not to be written."""
    return _once(run, name, lambda: _read(run, *name.rpartition(".")[::2]))


def last_step(runs: Iterable[Run]) -> int:
    """The last step that any of them has recorded, at least 1."""
    return max((int(series(run, "step").max(initial=0)) for run in runs), default=0) or 1


def _once(run: Run, what: str, find: Callable[[], T]) -> T:
    if what not in run.known:
        run.known[what] = find()
    found: T = run.known[what]
    return found


def _read(run: Run, view: str, field: str) -> "NDArray[np.float64]":
    import numpy as np

    if view and view not in views(run):
        return np.full(len(run.records), math.nan)
    sources = _once(run, f"{view}.", lambda: _readings(run, view)) if view else run.records
    try:
        found = np.fromiter(map(itemgetter(field), sources), np.float64, len(sources))
    except (KeyError, TypeError):  # absent, or null
        found = np.array([source.get(field) for source in sources], dtype=np.float64)
    found.flags.writeable = False
    return found


def _views(run: Run) -> list[dict[str, Any] | None]:
    return _once(run, "views", lambda: [record.get("views") for record in run.records])


def _names(run: Run) -> dict[str, None]:
    kinds = dict.fromkeys(map(tuple, filter(None, _views(run))))  # a handful of different ones
    return dict.fromkeys(chain.from_iterable(kinds))


def _readings(run: Run, view: str) -> list[dict[str, Any]]:
    return [(views or {}).get(view) or {} for views in _views(run)]
