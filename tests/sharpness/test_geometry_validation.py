"""`measure` and `Recorder` refuse a geometry that is none, in one line and before anything is written."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from optim_family import Recorder, measure
from optim_family.geometry import DiagonalMetric, Geometry, ScalarMetric
from optim_family.norms import MaxNorm, Norm
from optim_family.optimizers.gd import GD
from optim_family.optimizers.signgd import SignGD
from optim_family.sharpness.geometry_validation import validate_geometry

LOSS = nn.functional.cross_entropy
WEIGHTS = torch.tensor([3.0, -4.0])


class Own(Norm):
    """A norm of ℝᵈ whose value a test chooses, as a function of the Euclidean length."""

    def __init__(self, dim, function):
        self.dim, self.function = dim, function

    def value(self, step):
        return self.function(float(step.norm()))

    def dual(self, gradient):
        return float(gradient.norm())

    def maximizer(self, gradient):
        return gradient / gradient.norm()


def declared(change):
    """An optimizer whose geometry is changed."""

    class Declared(SignGD):
        def geometry(self):
            return change(super().geometry())

    return Declared


MISTAKES = [
    (lambda g: None, "geometry() must return a Geometry; got NoneType"),
    (lambda g: replace(g, metric=None, norm=None), "geometry().metric must be a Metric; got NoneType"),
    (lambda g: replace(g, norm="max"), "geometry().norm must be a Norm; got str"),
    (lambda g: replace(g, norm=Own(8, lambda x: -x)), "Own is not a norm: N(w) = -"),
    (lambda g: replace(g, norm=Own(8, lambda x: x * x)), "Own is not a norm: N(w) = "),
    (lambda g: replace(g, norm=MaxNorm(3)), "the norm is for 3 weights, and 8 are trained"),
    (lambda g: replace(g, threshold=0.0), "the threshold must be positive; got 0.0"),
]


@pytest.mark.parametrize(("change", "says"), MISTAKES)
def test_a_geometry_that_is_none_is_refused(change, says, tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    chunks, optimizer = [(torch.randn(8, 3), torch.randint(0, 2, (8,)))], declared(change)(model.parameters())
    with pytest.raises((TypeError, ValueError)) as refusal:
        measure(model, LOSS, chunks, optimizer)
    assert str(refusal.value).startswith(says) and "\n" not in str(refusal.value)
    with pytest.raises((TypeError, ValueError)) as refusal:
        Recorder(model, optimizer, LOSS, chunks, out=tmp_path / "run")
    assert str(refusal.value).startswith(says) and not (tmp_path / "run").exists()


def test_a_length_that_is_not_homogeneous_is_told_from_one_that_is():
    threshold = 1.0
    for function in (lambda x: x, lambda x: 7 * x):
        geometry = Geometry.in_norm(Own(2, function), threshold, None)
        assert validate_geometry(geometry, WEIGHTS) is geometry
    for function in (math.sqrt, lambda x: x * x, lambda x: x + 1, lambda x: math.inf, lambda x: math.nan):
        with pytest.raises(ValueError, match="Own is not a norm: N"):
            validate_geometry(Geometry.in_norm(Own(2, function), threshold, None), WEIGHTS)


def test_a_metric_is_positive_and_of_the_weights():
    for metric in (ScalarMetric(2, 3.0), DiagonalMetric(torch.tensor([1.0, 2.0]))):
        geometry = Geometry(metric, 1.0, None)
        assert validate_geometry(geometry, WEIGHTS) is geometry
        assert validate_geometry(geometry, 0 * WEIGHTS) is geometry  # a layer may begin at zero
    with pytest.raises(ValueError, match="the metric is for 3 weights, and 2 are trained"):
        validate_geometry(Geometry(ScalarMetric(3), 1.0, None), WEIGHTS)


def test_weights_of_zero_are_measured():
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    chunks = [(torch.randn(8, 3), torch.randint(0, 2, (8,)))]
    for make in (GD, SignGD):
        assert measure(model, LOSS, chunks, make(model.parameters()), views=["raw"])["raw"].value > 0
