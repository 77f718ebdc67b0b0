import warnings

import pytest
import torch
from torch import nn

import optim_family
from optim_family.geometry import DiagonalMetric, Geometry, ScalarMetric
from optim_family.optimizers.adamw import AdamW
from optim_family.optimizers.sgd import SGD
from optim_family.sharpness.measure import measure
from optim_family.sharpness.metric_rounding import ROUNDINGS, geometry_with_rounding
from optim_family.sharpness.probe import Probe
from optim_family.training.experiment import build_experiment
from optim_family.training.spec import RunSpec
from tests.helpers.operators_for_tests import draw

EPS32 = torch.finfo(torch.float32).eps


def adamw_at(gradient: torch.Tensor, eps: float = 1e-12) -> AdamW:
    weight = nn.Parameter(torch.ones_like(gradient))
    weight.grad = gradient
    return AdamW([weight], AdamW.Hyper(eps=eps))


def diagonal(geometry: Geometry) -> DiagonalMetric:
    assert isinstance(geometry.metric, DiagonalMetric)
    return geometry.metric


def test_entries_near_zero_change_and_the_others_do_not() -> None:
    gradient = torch.tensor([1.0, -1.0, 1e-6, 0.0])
    optimizer = adamw_at(gradient)
    metric = diagonal(geometry_with_rounding(optimizer.geometry, optimizer.weights))
    rounding = ROUNDINGS * EPS32 * 0.5**0.5
    assert metric.rounding is not None
    expected = [rounding, rounding, rounding / (1e-6 + rounding), 1.0]
    assert metric.rounding.tolist() == pytest.approx(expected, rel=0.05)
    assert optimizer.weights[0].grad is gradient and torch.equal(
        metric.diagonal, diagonal(optimizer.geometry()).diagonal
    )


def test_a_number_as_metric_and_a_tensor_without_gradient_stay() -> None:
    weights = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    weights[0].grad = torch.tensor([1.0, 1e-7, 1.0])
    sgd, adamw = SGD(weights, SGD.Hyper()), AdamW(weights, AdamW.Hyper())
    assert isinstance(geometry_with_rounding(sgd.geometry, weights).metric, ScalarMetric)
    rounding = diagonal(geometry_with_rounding(adamw.geometry, weights)).rounding
    assert rounding is not None and rounding[1] > 0.9 and not rounding[3:].any() and weights[1].grad is None


def test_it_is_the_change_of_the_value_to_first_order() -> None:
    """Lanczos in the metric of the moved gradient has this value."""
    generator, d = torch.Generator().manual_seed(0), 30
    matrix = draw(d, d)
    hessian = optim_family.operators.Matrix(matrix @ matrix.T + torch.eye(d, dtype=torch.float64))
    gradient = torch.randn(d, generator=generator, dtype=torch.float64)
    step = ROUNDINGS * torch.finfo(torch.float64).eps * gradient.square().mean().sqrt()
    gradient[3] = 300 * step  # rounding changes this entry by a 300th
    w = torch.ones(d, dtype=torch.float64)

    def read(entries: torch.Tensor) -> optim_family.Reading:
        optimizer = adamw_at(entries, eps=0.0)
        return Probe("preconditioned", rtol=1e-9)(
            hessian, w, geometry_with_rounding(optimizer.geometry, optimizer.weights)
        )

    here, moved = read(gradient), read(gradient + step.copysign(gradient))
    assert here.rounding == pytest.approx(1 - moved.value / here.value, rel=0.05)
    assert 1e-3 < here.rounding < 1e-2 and here.as_record()["rounding"] == here.rounding
    assert Probe("spherical")(hessian, w, adamw_at(gradient).geometry()).rounding is None


def network() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(64, 10)
    return nn.Sequential(nn.Linear(10, 300), nn.Tanh(), nn.Linear(300, 3)), x, torch.randn(64, 3)


def test_measure_warns_at_step_0_and_not_some_steps_later() -> None:
    model, x, y = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options = {"views": ["raw", "preconditioned"]}
    with pytest.warns(
        UserWarning, match=r"^preconditioned sharpness: the rounding of the gradient .* by \d+%"
    ):
        first = measure(model, nn.functional.mse_loss, [(x, y)], optimizer, **options)
    assert first["preconditioned"].rounding > 0.01 and first["raw"].rounding is None
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        later = measure(model, nn.functional.mse_loss, [(x, y)], optimizer, **options)
    assert later["preconditioned"].rounding < 1e-3


def test_a_run_has_it() -> None:
    spec = RunSpec(optimizer="adamw", hyper={}, model="bn_mlp", data="digits", limit=50, steps=1)
    experiment = build_experiment(spec)
    assert diagonal(experiment.geometry()).rounding is not None
