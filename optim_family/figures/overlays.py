"""Predictions of theory for a run, drawn over the measurements; each has a name.

    edge    the threshold of each view; without momentum 2/ℓ where the view is spherical
    drift   2/ℓ at the edge, times e^{−2τ} from there on, the steepest drift of S
    loss    S ηλ / 4 with S = 2/ℓ, an upper bound of the mean loss above its minimum
    tau     τ = ηλt, a second axis

Drift and loss are those of full-batch gradient descent with weight decay at its edge of stability: from the
first record that has 100 % training accuracy and a sharpness of 2/ℓ or more.

Source: `predictions`.
"""

from typing import Final

import numpy as np

from optim_family.analysis import predictions
from optim_family.errors import UsageError, unknown
from optim_family.runs.columns import Array
from optim_family.runs.run import Run, first_fit_index, first_index, series

NAMES: Final = ("edge", "drift", "loss", "tau")


def parse_overlays(text: str | None) -> tuple[str, ...]:
    """Parse a list such as `edge,tau`; None means `all`, `none` means no overlay.

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


def first_index_at_edge(run: Run) -> int | None:
    """The index of the first record at 100 % training accuracy and at or above the spherical threshold."""
    at_edge = series(run, "spherical.ratio") >= 1
    at_edge[: first_fit_index(run)] = False  # all of them if there is none
    return first_index(at_edge)


def steepest_drift(run: Run) -> Array:
    """(step, S) of the steepest drift from the edge on, [2, n]; n = 0 if the theory does not apply."""
    step, tau, limit, _ = _at_the_edge(run)
    return np.array([step, [predictions.steepest_drift(limit[0], t - tau[0]) for t in tau]])


def mean_loss(run: Run) -> Array:
    """(step, S ηλ / 4) from the edge on, [2, n]; n = 0 if the theory does not apply."""
    step, _, limit, eta_lambda = _at_the_edge(run)
    return np.array([step, predictions.mean_excess_loss(limit, eta_lambda)])


def threshold_is_two_over_effective_lr(run: Run, view: str) -> bool:
    """Whether the threshold of a view is 2/ℓ at every record."""
    limit, lr = series(run, f"{view}.threshold"), series(run, "effective_lr")
    with np.errstate(invalid="ignore"):  # ∞ · 0
        return bool(np.all(np.isnan(limit) | (np.abs(limit * lr - 2) <= 2e-4)))


def _at_the_edge(run: Run) -> Array:
    """(step, τ, 2/ℓ, ηλ) of the records from the edge on, [4, n]; n = 0 unless it is GD with decay."""
    decay, begin = run.spec["hyper"].get("weight_decay"), first_index_at_edge(run)
    applies = decay and run.spec.get("batch_size") is None
    if begin is None or not (applies and threshold_is_two_over_effective_lr(run, "spherical")):
        return np.empty((4, 0))
    rows = np.array([series(run, name)[begin:] for name in ("step", "tau", "spherical.threshold", "lr")])
    rows[3] *= decay
    return rows[:, np.isfinite(rows).all(0)]
