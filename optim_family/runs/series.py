"""What a run has recorded, quantity by quantity."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from optim_family.runs.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def fitted(run: Run) -> int | None:
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
