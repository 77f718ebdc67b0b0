"""Refuse a geometry that is none, before a number is made of it."""

import math

import torch
from torch import Tensor

from optim_family.geometry import Geometry, Metric, UnknownMetric
from optim_family.norms import Norm


def validate_geometry(geometry: Geometry, weights: Tensor) -> Geometry:
    """Check a geometry: its metric or norm, and its threshold; returns the geometry.

    Args:
        geometry: that an optimizer declares.
        weights: [d], at which metric and norm are evaluated; ones, if all are zero.

    Raises:
        TypeError: it has no metric, or a norm that is no Norm.
        ValueError: P or N has another dimension, P is not positive definite, N is no norm, or the
            threshold is not positive.
    """
    if not isinstance(geometry.metric, Metric):
        raise TypeError(f"geometry().metric must be a Metric; got {type(geometry.metric).__name__}")
    vector = weights if bool(weights.any()) else torch.ones_like(weights)
    if geometry.norm is not None:
        _require_norm(geometry.norm, vector)
    elif isinstance(geometry.metric, UnknownMetric):
        return geometry
    else:
        _require_metric(geometry.metric, vector)
    if not geometry.threshold > 0:
        raise ValueError(f"the threshold must be positive; got {geometry.threshold}")
    return geometry


def _require_metric(metric: Metric, weights: Tensor) -> None:
    """Raise, unless wᵀP^{-1/2}w is positive."""
    if metric.dim != len(weights):
        raise ValueError(f"the metric is for {metric.dim} weights, and {len(weights)} are trained")
    product = metric.power(-0.5) @ weights  #                                   [d, d] · [d] → [d]
    if not (float(weights @ product) > 0 and bool(product.isfinite().all())):
        raise ValueError(
            "the metric must be positive definite and finite; wᵀP^{-1/2}w is not, for the weights w"
        )


def _require_norm(norm: Norm, weights: Tensor) -> None:
    """Raise, unless N(w) is positive, N(2w) twice as large, and N(−w) equal."""
    if not isinstance(norm, Norm):
        raise TypeError(f"geometry().norm must be a Norm; got {type(norm).__name__}")
    if norm.dim != len(weights):
        raise ValueError(f"the norm is for {norm.dim} weights, and {len(weights)} are trained")
    value, twice, negative = (norm.value(factor * weights) for factor in (1.0, 2.0, -1.0))
    if not 0 < value < math.inf:
        raise ValueError(f"{type(norm).__name__} is not a norm: N(w) = {value:.3g} at the weights w")
    if not (math.isclose(twice, 2 * value, rel_tol=1e-3) and math.isclose(negative, value, rel_tol=1e-3)):
        raise ValueError(
            f"{type(norm).__name__} is not a norm: N(w) = {value:.4g}, but N(2w) = {twice:.4g} and "
            f"N(−w) = {negative:.4g}"
        )
