import json

import numpy as np
import pytest
import torch
from torch import Tensor

from optim_family.curvature.spectral_density import spectral_density, spectral_measure
from optim_family.geometry import Decay, DiagonalMetric, Geometry
from optim_family.operators import Diagonal, Matrix, Scalar
from optim_family.sharpness.probe import view_operator
from optim_family.sharpness.views import VIEWS
from tests.helpers.operators_for_tests import LIKE, Counting, Reads, rotated

DISTINCT = [7.0, -3.0, 0.5, 0.1, -0.2, 2.0, 0.0, 1.1]


def directions(dim: int, samples: int, seed: int) -> Tensor:
    """What the seed draws, [samples, dim], of norm 1."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(dim, generator=generator, dtype=torch.float64) for _ in range(samples)]
    return torch.stack([v / v.norm() for v in drawn])


# --- quadrature -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_moments_are_exact_up_to_degree_2m_minus_1_and_no_further(steps, seed):
    matrix = rotated([2.0 * 0.9**i * (-1) ** (i % 3) for i in range(30)], seed)
    density = spectral_density(Matrix(matrix), LIKE, steps=steps, samples=3, seed=seed)
    power = directions(30, 3, seed)
    for k in range(2 * steps + 1):
        exact = (directions(30, 3, seed) * power).sum(1)  #  vᵀAᵏv
        each = (density.weights * density.nodes**k).sum(1)
        if k < 2 * steps:
            np.testing.assert_allclose(each, exact, rtol=1e-11, atol=1e-12)
        else:
            assert (np.abs(each - exact.numpy()) > 1e-9).all()
        power = power @ matrix


def test_weights_are_real_not_negative_and_have_the_sum_one():
    density = spectral_density(Matrix(rotated(DISTINCT * 5)), LIKE, steps=6, samples=8)
    assert density.weights.dtype == density.nodes.dtype == np.float64
    assert (density.weights >= 0).all()
    np.testing.assert_allclose(density.weights.sum(1), 1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("steps", [8, 20])
def test_with_as_many_steps_as_eigenvalues_the_nodes_are_the_eigenvalues(steps):
    values, vectors = torch.linalg.eigh(rotated(DISTINCT))
    density = spectral_density(Matrix(rotated(DISTINCT)), LIKE, steps=steps, samples=2)
    assert density.nodes.shape == (2, 8) and density.products == 16
    for nodes, weights, v in zip(density.nodes, density.weights, directions(8, 2, 0), strict=True):
        np.testing.assert_allclose(nodes, values, rtol=0, atol=1e-12)
        np.testing.assert_allclose(weights, (v @ vectors) ** 2, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_multiple_eigenvalues_are_one_node_each_and_the_rest_of_the_steps_weighs_nothing(dtype):
    spectrum = [5.0] * 4 + [1.0] * 10 + [-2.0] * 6
    like = torch.empty(0, dtype=dtype)
    density = spectral_density(Matrix(rotated(spectrum).to(dtype)), like, steps=9, samples=3)
    tolerance = 100 * torch.finfo(dtype).eps
    for nodes, weights in zip(density.nodes, density.weights, strict=True):
        np.testing.assert_allclose(nodes[:3], [-2, 1, 5], rtol=tolerance)
        assert (weights[:3] > 0.01).all() and (weights[3:] == 0).all()


@pytest.mark.parametrize("scale", [0.0, 2.0, -1e-30])
def test_a_multiple_of_the_identity_is_one_node(scale):
    density = spectral_density(Scalar(9, scale), LIKE, steps=5)
    np.testing.assert_allclose(density.nodes, scale, rtol=1e-14)
    assert density.mean(lambda t: t)[0] == pytest.approx(scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_resolved_eigenvalue_does_not_come_back_as_a_copy_of_itself(dtype):
    diagonal = torch.linspace(0, 1, 400, dtype=dtype)
    diagonal[-2:] = torch.tensor([30.0, 100.0])
    density = spectral_density(Diagonal(diagonal), torch.empty(0, dtype=dtype), steps=120, samples=1)
    for outlier in (30.0, 100.0):
        assert (np.abs(density.nodes - outlier) < 1e-3 * outlier).sum() == 1
    assert (density.nodes > 1.01).sum() == 2


# --- what the directions see ------------------------------------------------------------------------------


def test_means_over_the_spectrum_lie_within_their_standard_errors_which_are_those_of_the_sphere():
    """Var vᵀAv = 2 (tr A²/d − (tr A/d)²) / (d + 2) for v uniform on the sphere of ℝᵈ."""
    spectrum = torch.tensor(DISTINCT * 5, dtype=torch.float64)
    density = spectral_density(Matrix(rotated(DISTINCT * 5)), LIKE, steps=8, samples=400)
    for f in (lambda t: t, lambda t: t**2, lambda t: np.exp(-t), lambda t: np.abs(t)):
        value, error = density.mean(f)
        a = torch.as_tensor(f(spectrum.numpy()))
        exact_error = (2 * a.var(correction=0) / (len(a) + 2) / 400).sqrt()
        assert abs(value - float(a.mean())) < 4 * error
        assert error == pytest.approx(float(exact_error), rel=0.15)  # its own relative error is 1/√800


@pytest.mark.parametrize("steps", [3, 9, 40])
def test_the_measure_of_one_vector_has_its_moments(steps):
    operator = Matrix(rotated(torch.linspace(-1, 3, 9).tolist()))
    vector = torch.arange(1.0, 10.0, dtype=torch.float64)
    nodes, weights = spectral_measure(operator, vector, steps=steps)
    moment = vector
    for power in range(2 * min(steps, 9)):
        assert (weights * nodes**power).sum() == pytest.approx(float(vector @ moment), rel=1e-10)
        moment = operator @ moment
    assert len(nodes) == min(steps, 9) and (np.diff(nodes) > 0).all()


def test_the_smoothed_density_of_many_directions_is_that_of_the_spectrum():
    spectrum = np.array([*np.linspace(-1, 1, 200), 6.0, 6.5])
    density = spectral_density(Diagonal(torch.tensor(spectrum)), LIKE, steps=60, samples=60)
    grid = np.linspace(-2, 8, 400)
    exact = np.exp(-0.5 * ((grid[:, None] - spectrum) / 0.2) ** 2).mean(1) / (0.2 * np.sqrt(2 * np.pi))
    values, errors = density.at(grid, 0.2)
    assert (np.abs(values - exact) < 5 * errors + 1e-6).all()
    assert np.abs(values - exact).max() < 0.05 * exact.max()


@pytest.mark.parametrize("name", [view.name for view in VIEWS.values() if not view.generalized])
def test_every_view_has_its_own_spectrum(name):
    matrix, w = rotated(DISTINCT), torch.arange(1.0, 9.0, dtype=torch.float64)
    p = torch.linspace(0.5, 3.0, 8, dtype=torch.float64)
    geometry = Geometry(DiagonalMetric(p), 2.0, Decay(0.0))
    operator = view_operator(VIEWS[name], Matrix(matrix), w, geometry)
    half = torch.diag(p**-0.5) if "preconditioned" in name else torch.eye(8, dtype=torch.float64)
    tangent = torch.eye(8, dtype=torch.float64) - (name == "riemannian") * torch.outer(w, w) / (w @ w)
    exact = torch.linalg.eigvalsh(half @ tangent @ matrix @ tangent @ half)
    density = spectral_density(operator, w, steps=8, samples=1)
    np.testing.assert_allclose(density.nodes[0], exact, rtol=0, atol=1e-12)


# --- conduct ----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    first, again, other = (
        spectral_density(Matrix(rotated(DISTINCT)), LIKE, steps=4, seed=seed) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.nodes, again.nodes) and np.array_equal(first.weights, again.weights)
    assert not np.array_equal(first.nodes, other.nodes)


def test_the_users_random_numbers_are_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    spectral_density(Matrix(rotated(DISTINCT)), LIKE, steps=4)
    assert torch.equal(torch.get_rng_state(), before)


def test_products_are_counted_one_by_one():
    operator = Counting(Matrix(rotated(DISTINCT)))
    density = spectral_density(operator, LIKE, steps=5, samples=3)
    assert density.products == operator.count == 15 and density.dim == 8 and density.seconds > 0


def test_numbers_are_read_from_the_device_once_at_the_end():
    counts = []
    for steps in (3, 6):
        with Reads() as reads:
            spectral_density(Matrix(rotated(DISTINCT)), LIKE, steps=steps, samples=2)
        counts.append(reads.count)
    assert counts == [2, 2]  # .cpu() and .numpy()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("bad_at", [1, 4, 8])
def test_a_product_that_is_not_finite_raises(bad_at, bad):
    operator = Counting(Matrix(rotated(DISTINCT)), bad, {bad_at})
    with pytest.raises(FloatingPointError, match="not finite"):
        spectral_density(operator, LIKE, steps=4, samples=2)


@pytest.mark.parametrize(("steps", "samples"), [(0, 1), (1, 0), (-3, 2)])
def test_a_density_of_nothing_is_refused(steps, samples):
    with pytest.raises(ValueError, match=f"one step and one sample; got {steps} and {samples}"):
        spectral_density(Scalar(3), LIKE, steps=steps, samples=samples)


def test_a_record_is_json():
    record = json.loads(json.dumps(spectral_density(Scalar(3), LIKE, steps=2, samples=1).as_record()))
    assert record["dim"] == 3 and len(record["nodes"][0]) == len(record["weights"][0]) == 2
