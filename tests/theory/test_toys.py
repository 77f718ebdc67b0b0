"""The toys are scale-invariant, with the declared minimisers and sharpness."""

import math

import pytest
import torch

from optim_family.theory.toys import Completion, Parabolas, Regression, Toy, Valley, unit

INVARIANT: list[Toy] = [Regression.make(), Regression.make(5, 9, seed=3), Valley(), Completion.make()]
TOYS = [*INVARIANT, Parabolas()]
every_toy = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: type(toy).__name__)
every_invariant_toy = pytest.mark.parametrize("toy", INVARIANT, ids=lambda toy: type(toy).__name__)


def noise(like, seed=0):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(toy, w):
    w = w.clone().requires_grad_()
    return torch.autograd.grad(toy.loss(w), w)[0]


def dense_sharpness(toy, w):
    """λ₁ by columns of double backward."""
    w = w.clone().requires_grad_()
    (g,) = torch.autograd.grad(toy.loss(w), w, create_graph=True)
    columns = [torch.autograd.grad(entry, w, retain_graph=True)[0] for entry in g]
    return float(torch.linalg.eigvalsh(torch.stack(columns))[-1])


@every_invariant_toy
def test_twice_the_weights_are_the_same_loss_bitwise(toy):
    w = toy.start() + 0.3 * noise(toy.start())
    assert toy.loss(w) > 0
    assert torch.equal(toy.loss(2 * w), toy.loss(w))
    assert torch.equal(gradient(toy, 2 * w), gradient(toy, w) / 2)


@every_toy
def test_the_start_is_a_minimiser(toy):
    assert float(toy.loss(toy.start())) < 1e-25
    assert float(gradient(toy, toy.start()).norm()) < 1e-11
    assert toy.start().dtype == torch.float64


@every_invariant_toy
def test_the_start_is_a_direction(toy):
    assert float(toy.start().norm()) == pytest.approx(1, abs=1e-15)


@every_toy
def test_the_closed_sharpness_is_the_top_eigenvalue(toy):
    assert toy.sharpness(toy.start()) == pytest.approx(dense_sharpness(toy, toy.start()), rel=1e-11)


def minimisers():
    valley, regression = Valley(bend=0.5, sharp_end=0.7), Regression.make(seed=1)
    yield from ((valley, valley.minimiser(angle)) for angle in (-2.0, 0.4, 3.0))
    yield from ((regression, regression.minimiser(tangent)) for tangent in (0.0, 0.5, 10.0))
    yield from ((toy, toy.start()) for toy in (Completion.make(4, 3, seed=s) for s in (5, 6)))
    yield Parabolas(), torch.tensor([0.0, -0.2], dtype=torch.float64)


@pytest.mark.parametrize(("toy", "place"), list(minimisers()))
def test_the_closed_sharpness_holds_at_other_minimisers(toy, place):
    assert float(toy.loss(place)) < 1e-25
    assert toy.sharpness(place) == pytest.approx(dense_sharpness(toy, place), rel=1e-10)


def test_the_loss_of_the_regression_is_the_textbook_formula():
    toy, w = Regression.make(), noise(torch.empty(12))
    sigma = toy.x.T @ toy.x / len(toy.x)
    outputs = toy.y.square().mean().sqrt() * (toy.x @ w) / torch.sqrt(w @ sigma @ w)
    assert float(toy.loss(w)) == pytest.approx(float(0.5 * (outputs - toy.y).square().mean()), rel=1e-14)


def test_the_interpolators_are_flattest_at_the_least_norm():
    toy = Regression.make()
    sharpness = [toy.sharpness(toy.minimiser(tangent)) for tangent in (0.0, 1.0, 2.57)]
    expected = [sharpness[0] * (1 + tangent**2) for tangent in (0.0, 1.0, 2.57)]
    assert sharpness == pytest.approx(expected, rel=1e-12)


def test_the_angle_of_the_regression_shrinks_along_its_flow():
    toy, tau = Regression.make(tan_angle=1.7), torch.tensor([0.0, 0.4, 3.0], dtype=torch.float64)
    expected = [toy.sharpness(toy.minimiser(1.7 * math.exp(-t))) for t in tau.tolist()]
    assert toy.sharpness_at(tau).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_valley_can_be_drawn_in_one_call():
    toy = Valley()
    points = noise(torch.empty(4, 5, 3))
    assert toy.loss(points)[1, 2] == toy.loss(points[1, 2])
    valley = toy.minimiser(torch.linspace(-3, 3, 7, dtype=torch.float64))
    assert float(toy.loss(valley).max()) < 1e-25
    assert toy.sharpnesses(valley).tolist() == [toy.sharpness(point) for point in valley]


def test_the_valley_is_steep_at_one_end_and_flat_at_the_other():
    toy = Valley(steepness=1.5)
    ends = [toy.sharpness(toy.minimiser(angle)) for angle in (0.0, math.pi)]
    assert ends[0] / ends[1] == pytest.approx(math.exp(3.0), rel=1e-12)


def test_the_loss_of_the_completion_depends_on_the_observed_entries_only():
    toy = Completion.make(5, 2)
    assert toy.observed.sum(0).tolist() == toy.observed.sum(1).tolist() == [2] * 5
    hidden = Completion(torch.where(toy.observed, toy.matrix, 77.0), toy.observed, toy.left)
    w = toy.start() + noise(toy.start())
    assert torch.equal(hidden.loss(w), toy.loss(w))
    entries, seen = toy.product(w)[toy.observed], toy.matrix[toy.observed]
    outputs = (entries - entries.mean()) / entries.std(correction=0) * seen.std(correction=0) + seen.mean()
    assert float(toy.loss(w)) == pytest.approx(float(0.5 * (outputs - seen).square().mean()), rel=1e-12)


def test_unit_vectors_of_many():
    vectors = noise(torch.empty(2, 5, 3))
    assert torch.allclose(unit(vectors).norm(dim=-1), torch.ones(2, 5, dtype=torch.float64), atol=1e-15)
