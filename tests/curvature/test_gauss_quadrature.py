import json

import numpy as np
import pytest

from optim_family.curvature.gauss_quadrature import SpectralDensity, gauss_rule


def density(nodes, weights, dim=10):
    return SpectralDensity(np.array(nodes), np.array(weights), dim=dim, products=7, seconds=0.5)


TWO = density([[-1.0, 0.0, 3.0], [-0.9, 0.2, 3.1]], [[0.1, 0.7, 0.2], [0.3, 0.4, 0.3]])


def test_the_jacobi_matrix_of_legendre_gives_the_textbook_rule():
    """Three points for the mean over [−1, 1]: 0 and ±√(3/5) with 4/9 and 5/18."""
    j = np.arange(1, 4)
    nodes, weights = gauss_rule(np.zeros(3), j / np.sqrt(4 * j**2 - 1))
    np.testing.assert_allclose(nodes, [-np.sqrt(0.6), 0, np.sqrt(0.6)], atol=1e-15)
    np.testing.assert_allclose(weights, [5 / 18, 4 / 9, 5 / 18], rtol=1e-14)


@pytest.mark.parametrize("end", [1, 2, 3])
def test_a_rule_ends_at_the_first_zero_and_is_filled_with_weightless_nodes(end):
    alpha, beta = np.array([2.0, 1.0, 5.0, -9.0]), np.array([1.0, 0.5, 0.3, 0.0])
    beta[end - 1] = 0.0
    nodes, weights = gauss_rule(alpha, beta)
    short = np.linalg.eigvalsh(
        np.diag(alpha[:end]) + np.diag(beta[: end - 1], 1) + np.diag(beta[: end - 1], -1)
    )
    np.testing.assert_allclose(nodes[:end], short, rtol=1e-14)
    assert weights[:end].sum() == pytest.approx(1, abs=1e-15)
    assert (nodes[end:] == nodes[end - 1]).all() and (weights[end:] == 0).all()


def test_means_are_over_nodes_then_over_directions_with_the_spread_of_the_directions():
    value, error = TWO.mean(lambda t: t**2)
    each = [0.1 + 0.2 * 9, 0.3 * 0.81 + 0.4 * 0.04 + 0.3 * 3.1**2]
    assert value == pytest.approx(np.mean(each), rel=1e-14)
    assert error == pytest.approx(np.std(each, ddof=1) / np.sqrt(2), rel=1e-12)
    assert TWO.mean(lambda t: t < 0)[0] == pytest.approx(0.2)


def test_one_direction_has_no_standard_error():
    value, error = density([[1.0, 2.0]], [[0.5, 0.5]]).mean(lambda t: t)
    assert value == 1.5 and np.isnan(error)


@pytest.mark.parametrize("width", [None, 0.3])
def test_the_smoothed_density_has_the_integral_one_and_the_moments_of_the_rule(width):
    grid = np.linspace(-5, 8, 20001)
    values, errors = TWO.at(grid, width)
    sigma = width or TWO.width
    assert np.trapezoid(values, grid) == pytest.approx(1, abs=1e-9)
    assert np.trapezoid(grid * values, grid) == pytest.approx(float(TWO.mean(lambda t: t)[0]), abs=1e-9)
    second = float(TWO.mean(lambda t: t**2)[0]) + sigma**2
    assert np.trapezoid(grid**2 * values, grid) == pytest.approx(second, abs=1e-9)
    assert values.shape == errors.shape == grid.shape and (errors >= 0).all()


def test_a_lone_node_is_a_normal_curve_of_the_width_asked_for():
    one = density([[2.0], [2.0]], [[1.0], [1.0]])
    values, errors = one.at(np.array([2.0, 2.5]), 0.5)
    np.testing.assert_allclose(values, np.exp([0, -0.5]) / (0.5 * np.sqrt(2 * np.pi)), rtol=1e-14)
    assert (errors == 0).all()


@pytest.mark.parametrize(("nodes", "width"), [([-1.0, 3.0], 0.04), ([2.0, 2.0], 2e-5), ([0.0, 0.0], 1.0)])
def test_the_width_is_a_hundredth_of_the_range_and_never_zero(nodes, width):
    assert density([nodes], [[0.5, 0.5]]).width == pytest.approx(width)


def test_a_record_is_json_and_comes_back_whole():
    back = SpectralDensity.from_record(json.loads(json.dumps(TWO.as_record())))
    assert np.array_equal(back.nodes, TWO.nodes) and np.array_equal(back.weights, TWO.weights)
    assert (back.dim, back.products, back.seconds) == (10, 7, 0.5)
