import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optim_family.curvature.chunked_loss import chunk_losses
from optim_family.curvature.gauss_quadrature import SpectralDensity
from optim_family.curvature.hessian import Hessian
from optim_family.curvature.trace import trace
from optim_family.figures.spectrum_figure import figure
from optim_family.geometry import Decay, DiagonalMetric, Geometry
from optim_family.sharpness.batch_sharpness import batch_sharpness
from optim_family.sharpness.layer_sharpness import layer_sharpness
from optim_family.sharpness.midpoint import moved_to
from optim_family.sharpness.spectrum import QUANTITIES, examine, scaled_view_operator
from optim_family.sharpness.views import VIEWS
from optim_family.space import ParameterSpace


class Case:
    """A small network with its data, its Hessian and the metric of an optimizer."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        readout = nn.Linear(3, 2).requires_grad_(False)
        norm = nn.BatchNorm1d(3, affine=False, eps=1e-300)
        self.model = nn.Sequential(nn.Linear(4, 3, bias=False), norm, nn.Tanh(), readout).double()
        x, y = torch.randn(12, 4, dtype=torch.float64), torch.randn(12, 2, dtype=torch.float64)
        self.space = ParameterSpace.of(self.model)
        self.losses = chunk_losses(self.model, F.mse_loss, [(x, y)])
        self.batches = [chunk_losses(self.model, F.mse_loss, [(x[i::3], y[i::3])]) for i in range(3)]
        p = torch.linspace(0.5, 2, self.space.dim, dtype=torch.float64)
        self.geometry = Geometry(DiagonalMetric(p), 3.0, Decay(0.0))

    @property
    def hessian(self) -> Hessian:
        return Hessian(self.losses, self.space.tensors)

    def examine(self, **options):
        return examine(self.hessian, self.space, self.geometry, batches=self.batches, **options)


@pytest.fixture
def case() -> Case:
    return Case()


@pytest.mark.parametrize("view", [name for name, view in VIEWS.items() if not view.generalized])
def test_all_numbers_of_a_record_are_in_the_unit_of_its_reading(case, view):
    record = json.loads(json.dumps(case.examine(view=view, rtol=1e-9)))
    top, w = record["reading"]["value"], case.space.weights()
    dense = scaled_view_operator(VIEWS[view], case.hessian, w, case.geometry).dense()
    density = SpectralDensity.from_record(record["density"])
    assert top == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-8)
    assert density.nodes.max() == pytest.approx(top, rel=1e-8)  # as many steps as dimensions
    estimate = trace(scaled_view_operator(VIEWS[view], case.hessian, w, case.geometry), w)
    assert record["trace"]["value"] == pytest.approx(estimate.value, rel=1e-9)
    assert abs(estimate.value - float(dense.trace())) < 5 * estimate.standard_error
    assert record["layers"]["0.weight"]["value"] == pytest.approx(top, rel=1e-8)  # the only layer
    thresholds = {part["threshold"] for part in (record["reading"], record["layers"]["0.weight"])}
    assert thresholds == {record["batch_sharpness"]["threshold"]}
    assert record["view"] == view


def test_each_entry_is_what_its_own_function_says(case):
    record, w = case.examine(view="raw", seed=5), case.space.weights()
    alone = trace(case.hessian, w, seed=5)
    layers = layer_sharpness(case.hessian, case.space, case.geometry, seed=5)
    batch = batch_sharpness(case.batches, case.space.tensors, case.geometry)
    assert record["trace"]["value"] == alone.value
    assert record["layers"]["0.weight"]["value"] == layers["0.weight"].value
    assert record["batch_sharpness"]["quotients"] == batch.quotients


@pytest.mark.parametrize("looks", [(), ("trace",), ("layers", "density")])
def test_only_what_is_asked_for_is_measured(case, looks):
    assert list(case.examine(looks=looks)) == ["view", "reading", *looks]
    assert set(case.examine()) == {"view", "reading", *QUANTITIES}


def test_a_record_can_be_drawn(case):
    drawn = figure(case.examine(view="spherical"))
    assert [ax.get_title("left").split()[0] for ax in drawn.axes] == ["Density", "Each", "Each"]


def test_layers_can_share_a_name_and_searches_have_options(case):
    record = case.examine(looks=["layers"], depth=1, k=2)
    assert list(record["layers"]) == ["0"]
    assert len(record["reading"]["top"]) == len(record["layers"]["0"]["top"]) == 2


def test_other_weights_can_be_examined_without_moving_the_network(case):
    here, w = case.examine(view="raw"), case.space.weights()
    with moved_to(case.space, 2 * w):
        there = case.examine(view="raw")
    assert there["reading"]["value"] == pytest.approx(here["reading"]["value"] / 4, rel=1e-2)
    assert case.examine(view="raw")["trace"]["value"] == here["trace"]["value"]


def test_what_cannot_be_looked_at_is_named(case):
    with pytest.raises(ValueError, match="there is no quantity 'spectrum'; known: density, trace"):
        case.examine(looks=["trace", "spectrum"])
    with pytest.raises(ValueError, match="gave no mini-batch"):
        examine(case.hessian, case.space, looks=["batch_sharpness"])
