"""The rotation in equilibrium: closed forms, a simulation, and where there is none."""

import math

import pytest
import torch

from optim_family import registry
from optim_family.geometry import Decay, Geometry, UnknownMetric, equilibrium_rotation
from optim_family.runs.run import read_run
from optim_family.theory.cases.rotation import ETA_LAMBDA, OPTIMIZERS
from optim_family.training.loop import train
from tests.helpers.training_runs import spec


def declared(name, lr, weight_decay, **hyper):
    """The angle that an optimizer declares for its next step."""
    w = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    w.grad = torch.ones_like(w)
    optimizer = registry.load(name)([w], lr=lr, weight_decay=weight_decay, **hyper)
    return equilibrium_rotation(optimizer.geometry(), lr)


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_it_is_the_closed_form_of_the_case_v19(case):
    name, lr, hyper, angle = OPTIMIZERS[case]
    assert declared(name, lr, ETA_LAMBDA / lr, **hyper) == pytest.approx(angle, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "hyper", "share"),
    [
        ("gd", {}, 1),
        ("gd", {"momentum": 0.5}, 1 / 3),
        ("torch:SGD", {"momentum": 0.9}, 1 / 1.9),
        ("torch:AdamW", {}, 1 / 19),
        ("rmsprop", {}, 1),
        ("signgd", {}, 1),
        ("lion", {"beta1": 0.0}, 1),
    ],
)
def test_other_optimizers_of_these_rules_have_it(name, hyper, share):
    expected = math.sqrt(2 * 0.1 * 0.01 * share)
    assert declared(name, 0.1, 0.01, **hyper) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("torch:NAdam", {"decoupled_weight_decay": True}),
        ("torch:Adam", {}),  # its decay passes through the metric
        ("lion", {}),
        ("sam", {}),
        ("torch:Adafactor", {}),
    ],
)
def test_others_have_none(name, hyper):
    assert declared(name, 0.1, 0.01, **hyper) is None


def test_there_is_none_without_decay():
    assert declared("gd", 0.1, 0.0) is None
    unknown = Geometry(UnknownMetric(3, "none"), math.inf, None)
    assert equilibrium_rotation(unknown, 0.1) is None
    assert equilibrium_rotation(Geometry(UnknownMetric(3, "none"), 20.0, Decay(0.1)), 0.1) is None


def test_a_heavy_ball_with_decoupled_decay_turns_by_it():
    generator, lr, shrink, beta = torch.Generator().manual_seed(0), 0.1, 1e-3, 0.5
    w = torch.randn(1000, generator=generator, dtype=torch.float64)
    w = (w / w.norm() * (lr**2 / (2 * shrink * (1 - beta) ** 2)) ** 0.25).requires_grad_()
    optimizer = registry.load("gd")([w], lr=lr, weight_decay=shrink / lr, momentum=beta)
    expected, squares = equilibrium_rotation(optimizer.geometry(), lr), []
    for _ in range(3000):
        before = w.detach().clone()
        g = torch.randn(1000, generator=generator, dtype=torch.float64) / math.sqrt(1000)
        w.grad = (g - (g @ before) / (before @ before) * before) / before.norm()
        optimizer.step()
        cosine = float(w.detach() @ before / (w.detach().norm() * before.norm()))
        squares.append(math.acos(min(1.0, cosine)) ** 2)
    assert math.sqrt(sum(squares[1000:]) / 2000) == pytest.approx(expected, rel=0.03)


def test_a_record_has_it_beside_the_rotation(tmp_path):
    run = spec("gd", steps=2, along=True, views=("raw",), hyper={"lr": 0.1, "weight_decay": 0.05})
    train(run, tmp_path / "run")
    along = read_run(tmp_path / "run").records[-1]["along"]
    assert along["equilibrium_rotation"] == pytest.approx(math.sqrt(2 * 0.1 * 0.05)) and along["rotation"] > 0
    train(run.model_copy(update={"norm": "none"}), tmp_path / "plain")
    assert "equilibrium_rotation" not in read_run(tmp_path / "plain").records[-1]["along"]
