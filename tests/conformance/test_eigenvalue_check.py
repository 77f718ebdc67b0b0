"""λ₁ against differences of gradients; each planted defect must be seen."""

import math

import pytest
import torch
from torch import nn

from optim_family.conformance import eigenvalue_check
from optim_family.conformance.eigenvalue_check import best_neighbours, check_eigenvalue
from optim_family.conformance.model_rows import AGREES, CHANGED, DIFFERS, verdict
from optim_family.networks.families import catalogue
from optim_family.networks.families.example import Example


def small(*layers):
    """A network with BatchNorm on six random examples."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), *layers, nn.Linear(5, 2))
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    return Example(model, nn.functional.mse_loss, (x, y))


def plant(monkeypatch, defect):
    """Let every measurement end with a defect."""
    measure = eigenvalue_check.measure

    def defective(model, *args, **kwargs):
        readings = measure(model, *args, **kwargs)
        defect(model)
        return readings

    monkeypatch.setattr(eigenvalue_check, "measure", defective)


def test_both_numbers_are_the_largest_eigenvalue_of_a_quadratic():
    torch.manual_seed(0)
    model, x = nn.Linear(5, 1, bias=False), torch.randn(8, 5, dtype=torch.float64)
    row = check_eigenvalue(Example(model, nn.functional.mse_loss, (x, torch.zeros(8, 1).double())))
    largest = float(torch.linalg.eigvalsh(2 * x.T @ x / 8)[-1])
    assert row["value"] == pytest.approx(largest, rel=1e-9)
    assert row["by differences"] == pytest.approx(largest, rel=1e-9)
    assert row["parameters"] == 5 and row["changed"] == [] and row["converged"]


@pytest.mark.parametrize("layer", [nn.Tanh, nn.ReLU, nn.Hardswish, lambda: nn.Dropout(0.5)])
def test_a_right_number_agrees(layer):
    row = check_eigenvalue(small(layer()))
    assert verdict(row) == AGREES and row["check"] == "passed" and row["changed"] == []
    assert row["spread"] < 1e-5


def test_a_module_of_torch_agrees():
    torch.manual_seed(0)
    row = check_eigenvalue(catalogue.build("torch/message passing"))
    assert verdict(row) == AGREES and row["value"] == pytest.approx(3.0526015992632307, rel=1e-6)


def test_a_wrong_number_differs(monkeypatch):
    measure = eigenvalue_check.measure

    def wrong(*args, **kwargs):
        reading = measure(*args, **kwargs)["raw"]
        object.__setattr__(reading, "value", 1.002 * reading.value)
        return {"raw": reading}

    monkeypatch.setattr(eigenvalue_check, "measure", wrong)
    assert verdict(check_eigenvalue(small(nn.Tanh()))) == DIFFERS


@pytest.mark.parametrize(
    ("defect", "names"),
    [
        (lambda model: model[1].running_mean.add_(1e-16), ["1.running_mean"]),
        (lambda model: model[0].weight.data.mul_(1 + 1e-15), ["0.weight"]),
        (lambda model: setattr(model[0].bias, "grad", torch.zeros(5).double()), ["gradient of 0.bias"]),
        (lambda model: model.eval(), [f"mode of {name}" for name in ("the model", "0", "1", "2", "3")]),
        (lambda model: model[1].register_buffer("new", torch.zeros(1)), ["1.new"]),
        (lambda model: torch.rand(1), ["random numbers"]),
    ],
    ids=["buffer", "parameter", "gradient", "mode", "new buffer", "random numbers"],
)
def test_what_a_measurement_changes_is_named(monkeypatch, defect, names):
    example = small(nn.Tanh())
    example.model[1].running_mean.fill_(0)
    with torch.random.fork_rng():
        plant(monkeypatch, lambda model: torch.no_grad()(defect)(model))
        row = check_eigenvalue(example)
    assert row["changed"] == names and verdict(row) == CHANGED


def test_a_buffer_that_loses_the_sign_of_zero_is_changed(monkeypatch):
    example = small(nn.Tanh())
    example.model[1].running_mean.fill_(-0.0)
    plant(monkeypatch, lambda model: model[1].running_mean.fill_(0.0))
    assert check_eigenvalue(example)["changed"] == ["1.running_mean"]


def test_a_nan_that_stays_is_no_change():
    example = small(nn.Tanh())
    example.model.register_buffer("unused", torch.tensor(math.nan))
    assert check_eigenvalue(example)["changed"] == []


def test_the_neighbours_that_agree_best_count_however_large_they_are():
    assert best_neighbours([1e-9, 3e-9, 1e6, 1.00001e6, 5.0]) == (1.00001e6, pytest.approx(1e-5, rel=1e-3))
    assert best_neighbours([math.nan, 2.0, 2.0]) == (2.0, 0.0)
    assert best_neighbours([math.nan, math.inf, math.inf])[1] == math.inf
