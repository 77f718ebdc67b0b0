"""Select the views to measure: the requested ones, or the default ones that apply.

A spherical view applies to a scale-invariant loss; a preconditioned one needs a known metric. If a default
spherical view does not apply, the view without its factor ρ² replaces it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from optim_family.errors import UsageError
from optim_family.geometry import Metric, UnknownMetric
from optim_family.norms import Norm
from optim_family.sharpness.views import VIEWS, unscaled_view

# The default views of `run`, `measure`, `Recorder` and the command `measure`, as far as they apply.
DEFAULT: Final = ("spherical", "spherical-preconditioned", "generalized")


@final
@dataclass(frozen=True)
class ViewSelection:
    """The views to measure, and the spherical ones skipped because the loss is not scale-invariant."""

    views: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def select_views(
    requested: Sequence[str] | None,
    metric: Metric,
    *,
    invariant: bool,
    norm: Norm | None = None,
    loss: str = "the loss is not scale-invariant",
) -> ViewSelection:
    """The views to measure.

    Args:
        requested: names of views; None for those of `DEFAULT` that apply: the preconditioned one if the
            metric is known and not the identity, the generalised one if the optimizer declares a norm (in a
            metric it is the preconditioned one).
        metric: of the optimizer; an `UnknownMetric` if it has none.
        invariant: whether the loss is scale-invariant.
        norm: that the optimizer declares, if it does.
        loss: the reason in an error if it is not.

    Raises:
        UsageError: a requested view does not apply.
    """
    if requested:
        _require_applicable(requested, metric, norm, invariant, loss)
        return ViewSelection(tuple(requested))
    useful = not isinstance(metric, UnknownMetric) and metric.scale != 1.0
    applies = {True: norm is not None, False: useful}
    views = tuple(
        name for name in DEFAULT if not VIEWS[name].own_geometry or applies[VIEWS[name].generalized]
    )
    if invariant:
        return ViewSelection(views)
    skipped = tuple(name for name in views if VIEWS[name].spherical)
    return ViewSelection(tuple(dict.fromkeys(map(unscaled_view, views))), skipped)


def _require_applicable(
    requested: Sequence[str], metric: Metric, norm: Norm | None, invariant: bool, loss: str
) -> None:
    for view in (VIEWS[name] for name in requested):
        if view.spherical and not invariant:
            raise UsageError(
                f"the view {view.name!r} does not apply: {loss}; measure raw or preconditioned instead"
            )
        in_norm = view.generalized and norm is not None
        if view.own_geometry and isinstance(metric, UnknownMetric) and not in_norm:
            raise UsageError(
                f"the view {view.name!r} does not apply: there is no metric: {metric.reason}; measure raw or "
                "spherical instead"
            )
