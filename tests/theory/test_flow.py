"""The flow against closed forms, and against differences; and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from optim_family.analysis.predictions import log_sharpness_slope
from optim_family.theory import flow
from optim_family.theory.flow import GRADIENT_DESCENT, FlowError, MinimizerManifold, integrate, scalar_rmsprop
from optim_family.theory.toys import Completion, Parabolas, Regression, Valley

RTOL = 1e-6  # the default of `integrate`, for each of some tens of steps
RMSPROP = scalar_rmsprop(0.02, 0.999)
TAU = torch.linspace(0, 3, 7, dtype=torch.float64)


def error(path, expected):
    return float((path.sharpness / torch.as_tensor(expected) - 1).abs().max())


def test_the_flow_of_the_regression_is_the_closed_form():
    toy = Regression.make()
    path = integrate(toy.loss, toy.start(), TAU)
    assert error(path, toy.sharpness_at(TAU)) < 100 * RTOL
    expected = torch.stack([toy.minimiser(toy.tan_angle * math.exp(-tau)) for tau in TAU.tolist()])
    assert float((path.points - expected).norm(dim=1).max()) < 100 * RTOL
    assert path.q.tolist() == pytest.approx((4 * (toy.tan_angle * torch.exp(-TAU)) ** 2).tolist(), rel=1e-4)


@pytest.mark.parametrize("wrong", [{"speed": 1}, {"speed": 2.1}, {"weight": 2}, {"weight": 0.9}])
def test_a_wrong_constant_shows(wrong):
    toy = Regression.make()
    path = integrate(toy.loss, toy.start(), TAU, replace(GRADIENT_DESCENT, **wrong))
    assert error(path, toy.sharpness_at(TAU)) > 0.01


def test_the_flow_in_the_valley_is_that_of_its_one_coordinate():
    """dφ/dτ = −2 (log λ₁)' / (4 s'² + (log λ₁)'²) in the longitude φ, with s' = |dζ/dφ|."""
    toy = Valley()

    def slope(_, longitude):
        phi = torch.tensor(longitude[0], requires_grad=True)
        point = toy.minimiser(phi)
        (log,) = torch.autograd.grad(toy.sharpnesses(point).log(), phi)
        speed = torch.autograd.functional.jacobian(toy.minimiser, phi.detach()).norm()
        return [float(-2 * log / (4 * speed**2 + log**2))]

    tau = 2 * TAU
    expected = solve_ivp(slope, (0, 6), [toy.sharp_end + toy.start_angle], t_eval=tau, rtol=1e-9, atol=1e-11)
    path = integrate(toy.loss, toy.start(), tau)
    assert (
        float((path.points - toy.minimiser(torch.from_numpy(expected.y[0]))).norm(dim=1).max()) < 100 * RTOL
    )


def test_scalar_rmsprop_has_a_flow_of_its_own():
    """du/dτ = −r / (4 + 2r²/C) with r = 2u / (1 + u²)."""
    toy, lr, beta = Parabolas(), 0.02, 0.9992
    c = (1 - beta) / (beta * lr**2)

    def slope(_, u):
        r = 2 * u / (1 + u**2)
        return -r / (4 + 2 * r**2 / c)

    expected = solve_ivp(slope, (0, 3), [toy.u], t_eval=TAU, rtol=1e-10, atol=1e-12).y[0]
    path = integrate(toy.loss, toy.start(), TAU, scalar_rmsprop(lr, beta))
    assert np.abs(path.points[:, 1].numpy() - expected).max() < 100 * RTOL
    assert float(path.points[:, 0].abs().max()) < 1e-10


def test_the_path_stays_on_the_minimisers_and_falls_as_fast_as_it_says():
    toy = Completion.make()
    tau = torch.linspace(0.2, 0.26, 4, dtype=torch.float64)
    path = integrate(toy.loss, toy.start(), tau)
    assert max(float(toy.loss(point)) for point in path.points) < 1e-18
    assert path.sharpness.tolist() == pytest.approx([toy.sharpness(point) for point in path.points], rel=1e-9)
    slopes = torch.diff(path.sharpness.log()) / torch.diff(tau)
    predicted = [log_sharpness_slope(float(q)) for q in (path.q[1:] + path.q[:-1]) / 2]
    assert slopes.tolist() == pytest.approx(predicted, rel=1e-3)


@pytest.mark.parametrize(
    "toy", [Regression.make(), Valley(), Completion.make()], ids=lambda t: type(t).__name__
)
def test_the_gradient_is_that_of_the_sharpness_along_the_minimisers(toy):
    gamma = MinimizerManifold.through(toy.loss, toy.start())
    point, h = gamma.at(toy.start()), 1e-4
    direction = point.gradient / point.gradient.norm()
    ahead, behind = (gamma.project(toy.start() + sign * h * direction).sharpness for sign in (1, -1))
    slope = (math.log(ahead) - math.log(behind)) / (2 * h)
    assert slope == pytest.approx(math.sqrt(point.q), rel=1e-4)
    assert float(point.gradient @ point.point) == pytest.approx(0, abs=1e-12)


def test_the_third_derivative_is_a_difference_of_second_ones():
    toy, h = Completion.make(), 1e-5
    generator = torch.Generator().manual_seed(0)
    w, u, v = torch.randn(3, 20, generator=generator, dtype=torch.float64)

    def curvature(at):
        _, values, vectors = flow.derivatives(toy.loss, at)
        return float(values @ (vectors.T @ v).square())

    difference = (curvature(w + h * u) - curvature(w - h * u)) / (2 * h)
    assert float(flow.third_derivative_at(toy.loss, w, v) @ u) == pytest.approx(difference, rel=1e-6)


def test_newton_finds_the_minimiser_and_does_not_move_one():
    toy = Completion.make()
    gamma = MinimizerManifold.through(toy.loss, toy.start())
    assert float((gamma.project(toy.start()).point - toy.start()).norm()) < 1e-12
    generator = torch.Generator().manual_seed(1)
    off = toy.start() + 1e-3 * torch.randn(20, generator=generator, dtype=torch.float64)
    minimiser = gamma.project(off).point
    assert float(toy.loss(minimiser)) < 1e-22
    assert float((minimiser - off).norm()) < 1e-2


def refusal(loss, point, tau=(0.0, 1.0), equation=RMSPROP):
    with pytest.raises(FlowError) as refused:
        integrate(
            loss, torch.tensor(point, dtype=torch.float64), torch.tensor(tau, dtype=torch.float64), equation
        )
    return str(refused.value)


def test_what_is_not_a_minimiser_is_refused():
    assert "not a minimiser: it is about 0.099 away" in refusal(Parabolas().loss, [0.1, 1.5])
    assert "not a minimiser" in refusal(lambda w: w[0] ** 2 - w[1] ** 2, [0.0, 0.0])
    assert "no curvature" in refusal(lambda w: w[0] ** 4 + 0 * w[1], [0.0, 0.0])


def test_a_double_top_eigenvalue_is_refused():
    assert "λ₁ = 2 is not simple, λ₂ = 2" in refusal(
        lambda w: (1 + w[1] ** 2) * (w[0] ** 2 + w[2] ** 2), [0.0] * 3
    )


def test_a_crossing_on_the_way_is_refused_where_it_happens():
    """λ₁ = 1 + u² falls to λ₂ = 2 at u = 1; without q log(u² e^{u²}) = log u₀² + u₀² − τ there."""
    equation = replace(RMSPROP, weight=0)
    message = refusal(lambda w: Parabolas().loss(w) + w[2] ** 2, [0.0, 1.5, 0.0], (0.0, 9.0), equation)
    assert "λ₁ = 2.0" in message and "is not simple" in message
    at = float(message.split("τ = ")[1].split(":")[0])
    assert at == pytest.approx(math.log(1.5**2) + 1.5**2 - 1, abs=0.01)


def test_an_infinite_loss_is_refused():
    assert "no finite second derivatives" in refusal(lambda w: w.square().sum().sqrt() ** 3, [0.0, 0.0])
