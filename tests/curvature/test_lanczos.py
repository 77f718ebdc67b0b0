import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from optim_family.curvature.lanczos import Eigenpairs, top_eigenpairs
from optim_family.operators import Diagonal, Matrix, Scalar, SymmetricOperator
from tests.helpers.operators_for_tests import Counting, rotated

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
BULK = [i / 50 for i in range(50)]
CLUSTER = [10.0, 9.999, 9.99, 9.98, 9.9, *BULK]
GAPPED = [9.0, -14.0, 7.0, 5.0, 3.0, *BULK]


class Trained(SymmetricOperator):
    """A metric that is made of trained weights."""

    def __init__(self, weights: Tensor) -> None:
        self.weights, self.dim = weights, len(weights)

    def apply(self, v: Tensor) -> Tensor:
        return self.weights * v


def begin(dim: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_same(a: Eigenpairs, b: Eigenpairs) -> None:
    assert torch.equal(a.vectors, b.vectors)
    assert (a.values, a.residuals, a.errors, a.products) == (b.values, b.residuals, b.errors, b.products)


# --- known spectra ----------------------------------------------------------------------------------------

SPECTRA = {
    "most positive, not largest": [50.0, -80.0, 30.0],
    "degenerate": [5.0, 5.0, 5.0, 1.0, 1.0, 0.0, 0.0],
    "zero": [0.0] * 9,
    "identity": [2.0] * 9,
    "indefinite": [1.0, -1.0, 0.5, -0.5, 0.9, -0.9, 0.0, 0.0, 0.1],
    "negative": [-1.0, -2.0, -30.0, -3.0],
    "small beside the negative end": [0.01, *(-1.0 - i for i in range(20))],
    "one dimension": [3.0],
    "two dimensions": [3.0, 3.5],
    "longer than the basis": [2.0 * 0.9**i for i in range(60)],
}


@DTYPES
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SPECTRA)
def test_the_most_positive_eigenvalue_of_a_known_spectrum_is_found(
    name: str, seed: int, dtype: torch.dtype
) -> None:
    spectrum = SPECTRA[name]
    matrix = rotated(spectrum, seed).to(dtype)
    pairs = top_eigenpairs(Matrix(matrix), begin(len(spectrum), dtype, seed), rtol=1e-3)
    rounding = 100 * torch.finfo(dtype).eps * max(map(abs, spectrum))
    assert pairs.converged
    assert pairs.values[0] == pytest.approx(max(spectrum), rel=1e-3, abs=rounding)
    assert pairs.vectors.dtype == dtype


@DTYPES
@pytest.mark.parametrize("seed", range(3))
def test_the_top_of_a_tight_cluster_is_at_least_a_member_of_it(seed: int, dtype: torch.dtype) -> None:
    pairs = top_eigenpairs(
        Matrix(rotated(CLUSTER, seed).to(dtype)), begin(len(CLUSTER), dtype, seed), rtol=1e-3
    )
    assert 9.98 < pairs.values[0] < 10.0 + 1e-4


@DTYPES
@pytest.mark.parametrize("dim", [10, 1_000, 100_000])
def test_an_outlier_above_a_long_bulk_takes_few_products(dim: int, dtype: torch.dtype) -> None:
    diagonal = begin(dim, dtype, seed=2).clamp(-4, 4)
    diagonal[dim // 2] = 30.0
    pairs = top_eigenpairs(Diagonal(diagonal), begin(dim, dtype), rtol=1e-4)
    assert pairs.values[0] == pytest.approx(30.0, rel=1e-4)
    assert pairs.products <= 12
    assert float(pairs.vectors[0, dim // 2].abs()) == pytest.approx(1.0, abs=1e-2)


def test_an_eigenvector_that_is_coupled_to_nothing_is_left_for_the_rest_of_the_space() -> None:
    start = torch.zeros(6, dtype=torch.float64)
    start[2] = 1.0
    diagonal = torch.tensor([1.0, 2.0, 6.0, 4.0, 5.0, 3.0], dtype=torch.float64)
    pairs = top_eigenpairs(Diagonal(diagonal), start, k=6)
    assert pairs.values == pytest.approx((6.0, 5.0, 4.0, 3.0, 2.0, 1.0), rel=1e-12)


# --- the evidence -----------------------------------------------------------------------------------------


def searches(k: int, rtol: float, seeds: int) -> Iterator[tuple[float, float, float]]:
    """True eigenvalue, value found and error claimed, for every value of many searches over one spectrum."""
    for seed in range(seeds):
        start = begin(len(GAPPED), seed=seed + 9)
        pairs = top_eigenpairs(Matrix(rotated(GAPPED, seed)), start, k=k, rtol=rtol)
        assert pairs.converged
        yield from zip(sorted(GAPPED, reverse=True), pairs.values, pairs.errors, strict=False)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_errors_bound_the_true_error_where_the_spectrum_has_gaps(rtol: float, k: int) -> None:
    cases = list(searches(k, rtol, seeds=10))
    assert all(error <= rtol * abs(value) for _, value, error in cases)
    assert [case for case in cases if abs(case[0] - case[1]) > case[2]] == []


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_loose_tolerance_misses_no_eigenvalue(k: int) -> None:
    cases = searches(k, 0.05, seeds=60)
    assert [case for case in cases if abs(case[0] - case[1]) > 0.05 * case[0]] == []


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("basis_size", [1, 24, 100])
def test_the_k_largest_come_with_orthonormal_vectors_and_their_true_residuals(
    k: int, basis_size: int
) -> None:
    matrix = rotated(GAPPED)
    pairs = top_eigenpairs(Matrix(matrix), begin(len(GAPPED)), k=k, rtol=1e-4, basis_size=basis_size)
    theta = torch.tensor(pairs.values, dtype=torch.float64)
    residuals = torch.linalg.vector_norm(pairs.vectors @ matrix - theta[:, None] * pairs.vectors, dim=1)
    torch.testing.assert_close(
        theta, torch.tensor(sorted(GAPPED)[::-1][:k], dtype=torch.float64), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        pairs.vectors @ pairs.vectors.T, torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        torch.tensor(pairs.residuals, dtype=torch.float64), residuals, rtol=1e-6, atol=1e-12
    )


def test_float32_vectors_are_orthonormal_and_their_residuals_true_to_its_rounding() -> None:
    diagonal = torch.linspace(0, 1, 150)
    pairs = top_eigenpairs(Diagonal(diagonal), begin(150, torch.float32), k=4, rtol=1e-4, basis_size=1)
    assert pairs.products > 2 * 16  # it has restarted
    torch.testing.assert_close(pairs.vectors @ pairs.vectors.T, torch.eye(4), rtol=0, atol=1e-5)
    for value, vector, residual in zip(pairs.values, pairs.vectors, pairs.residuals, strict=True):
        assert float((diagonal * vector - value * vector).norm()) == pytest.approx(residual, abs=1e-5)


def test_products_are_counted_one_by_one() -> None:
    operator = Counting(Matrix(rotated(GAPPED)))
    assert top_eigenpairs(operator, begin(operator.dim)).products == operator.count > 4


def test_a_value_costs_fewer_products_than_its_vector() -> None:
    """The error of the value is the square of that of the vector: no waiting for a small residual."""
    diagonal = torch.linspace(0, 1, 150, dtype=torch.float64)
    pairs = top_eigenpairs(Diagonal(diagonal), begin(150), rtol=1e-4)
    assert pairs.converged and abs(pairs.values[0] - 1.0) < 1e-4
    assert pairs.residuals[0] > 1e-4


def test_giving_up_is_said_and_the_evidence_stays_true() -> None:
    matrix = rotated(CLUSTER)
    operator = Counting(Matrix(matrix))
    pairs = top_eigenpairs(operator, begin(len(matrix)), rtol=1e-12, max_products=6)
    assert not pairs.converged
    assert pairs.products == operator.count == 6
    assert pairs.errors[0] > 1e-12 * pairs.values[0]
    vector = pairs.vectors[0]
    assert pairs.values[0] == pytest.approx(float(vector @ matrix @ vector), rel=1e-12)
    assert pairs.residuals[0] == pytest.approx(
        float((matrix @ vector - pairs.values[0] * vector).norm()), rel=1e-9
    )


def test_k_values_take_k_products_even_where_fewer_are_allowed() -> None:
    pairs = top_eigenpairs(Matrix(rotated(GAPPED)), begin(len(GAPPED)), k=4, max_products=2)
    assert (len(pairs.values), pairs.products, pairs.converged) == (4, 4, False)


# --- identities -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3])
def test_a_small_basis_with_restarts_finds_what_a_large_one_finds(k: int) -> None:
    diagonal = torch.linspace(0, 1, 150, dtype=torch.float64)
    options = {"k": k, "rtol": 1e-6, "max_products": 500}
    small = top_eigenpairs(Diagonal(diagonal), begin(150), basis_size=12, **options)
    large = top_eigenpairs(Diagonal(diagonal), begin(150), basis_size=90, **options)
    assert small.converged and large.converged
    assert small.products > 3 * 12
    assert large.products < 90 + 30 * (
        k > 1
    )  # it has neither restarted nor filled the space; a copy was sought
    assert small.values == pytest.approx(large.values, rel=1e-6)
    overlaps = (small.vectors * large.vectors).sum(1).abs()
    torch.testing.assert_close(overlaps, torch.ones(k, dtype=torch.float64), rtol=0, atol=1e-3)


def test_the_same_start_gives_the_same_answer_to_the_last_bit() -> None:
    start = begin(len(GAPPED))
    assert_same(*(top_eigenpairs(Matrix(rotated(GAPPED)), start, k=2) for _ in range(2)))
    assert torch.equal(start, begin(len(GAPPED)))


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-10, 2.0**60])
def test_scaling_the_operator_scales_the_values_and_costs_nothing(scale: float) -> None:
    plain, scaled = (top_eigenpairs(Matrix(c * rotated(GAPPED)), begin(len(GAPPED))) for c in (1.0, scale))
    assert scaled.products == plain.products
    assert scaled.values[0] / scale == pytest.approx(plain.values[0], rel=1e-12)
    assert scaled.errors[0] / scale == pytest.approx(plain.errors[0], rel=1e-6)


def test_the_length_of_the_start_does_not_matter() -> None:
    start = begin(len(GAPPED))
    assert_same(*(top_eigenpairs(Matrix(rotated(GAPPED)), c * start) for c in (1.0, 2.0**20)))


def test_a_good_start_saves_products() -> None:
    matrix = Matrix(rotated(CLUSTER))
    cold = top_eigenpairs(matrix, begin(matrix.dim), rtol=1e-6)
    warm = top_eigenpairs(matrix, cold.vectors[0] + 0.01 * begin(matrix.dim, seed=3), rtol=1e-6)
    assert warm.products < cold.products


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("bad_from", [1, 4])
def test_a_product_that_is_not_finite_raises(bad_from: int, bad: float) -> None:
    operator = Counting(Matrix(rotated(GAPPED)), bad, range(bad_from, 1000))
    with pytest.raises(FloatingPointError, match="not finite"):
        top_eigenpairs(operator, begin(operator.dim))
    assert operator.count == bad_from + (
        bad_from == 1 and math.isinf(bad)
    )  # smaller vectors may not overflow


@pytest.mark.parametrize("entry", [0.0, float("nan"), float("inf")])
def test_a_start_without_direction_is_refused(entry: float) -> None:
    with pytest.raises(ValueError, match=r"start vector has norm .* finite and above zero"):
        top_eigenpairs(Scalar(3), torch.full((3,), entry))


@pytest.mark.parametrize("k", [0, -1, 4])
def test_k_must_fit_the_dimension(k: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and the dimension 3; got {k}"):
        top_eigenpairs(Scalar(3), torch.ones(3), k=k)


def test_nothing_is_differentiated_through_a_search() -> None:
    weights = torch.arange(1.0, 6.0, requires_grad=True)
    pairs = top_eigenpairs(Trained(weights), weights + 1.0)
    assert pairs.values[0] == pytest.approx(5.0) and not pairs.vectors.requires_grad
