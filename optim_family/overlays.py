"""What the theory predicts of a run, to be drawn over what was measured; each is wanted by its name.

    edge    the threshold of each view; without momentum 2/ℓ where the view is spherical
    drift   2/ℓ at the edge, times e^{−2τ} from there on: S falls no faster
    loss    S ηλ / 4 with S = 2/ℓ, the most that the loss is above its minimum in the mean
    tau     τ = ηλt, a second axis

Drift and loss are those of full-batch gradient descent with weight decay at its edge of stability: from the
first record on at 100 % training accuracy whose sharpness is at 2/ℓ or above.

Source: `predictions`.
"""

import math
from typing import Final

from optim_family.errors import UsageError, unknown
from optim_family.predictions import mean_excess_loss, sharpness_floor
from optim_family.store import Run
from optim_family.tables import column, fitted

Points = list[tuple[float, float]]

NAMES: Final = ("edge", "drift", "loss", "tau")


def chosen(text: str | None) -> tuple[str, ...]:
    """The overlays of a list such as `edge,tau`; `all`, which is what None means, or `none`.

    Raises:
        UsageError: a name is not known.
    """
    if text in (None, "all"):
        return NAMES
    names = () if text == "none" else tuple(str(text).replace(" ", "").split(","))
    for name in names:
        if name not in NAMES:
            raise UsageError(unknown("overlay", name, (*NAMES, "all", "none")))
    return names


def edge(run: Run) -> int | None:
    """The index of the first record at 100 % training accuracy and at or above the spherical threshold."""
    ratios, start = column(run, "spherical.ratio"), fitted(run)
    fit = range(len(ratios) if start is None else start, len(ratios))
    return next((index for index in fit if ratios[index] >= 1), None)


def drift(run: Run) -> Points:
    """(step, S) of the steepest drift, from the edge on; empty where the theory does not speak of the run."""
    rows = _at_the_edge(run)
    return [(step, sharpness_floor(rows[0][2], tau - rows[0][1])) for step, tau, _, _ in rows]


def mean_loss(run: Run) -> Points:
    """(step, S ηλ / 4), from the edge on; empty where the theory does not speak of the run."""
    return [(step, mean_excess_loss(limit, shrink)) for step, _, limit, shrink in _at_the_edge(run)]


def two_over_l(run: Run, view: str) -> bool:
    """Whether the threshold of a view is 2/ℓ at every record."""
    rows = zip(column(run, f"{view}.threshold"), column(run, "effective_lr"), strict=True)
    return all(math.isnan(limit) or math.isclose(limit * lr, 2, rel_tol=1e-4) for limit, lr in rows)


def _at_the_edge(run: Run) -> list[tuple[float, float, float, float]]:
    """(step, τ, 2/ℓ, ηλ) of every record from the edge on, if this is gradient descent with weight decay."""
    decay, begin = run.spec["hyper"].get("weight_decay"), edge(run)
    full = run.spec.get("batch_size") is None
    if begin is None or not (decay and full and two_over_l(run, "spherical")):
        return []
    shrinks = [decay * lr for lr in column(run, "lr")]
    names = ("step", "tau", "spherical.threshold")
    rows = zip(*(column(run, name) for name in names), shrinks, strict=True)
    return [row for row in list(rows)[begin:] if all(map(math.isfinite, row))]
