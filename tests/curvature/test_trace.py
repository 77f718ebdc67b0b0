import json
import math

import pytest
import torch

from optim_family.curvature.trace import trace
from optim_family.operators import CongruenceOperator, Diagonal, Matrix, Scalar
from tests.helpers.operators_for_tests import LIKE, Counting, Reads, rotated

DECAYING = [10.0 * 0.7**i for i in range(30)]
FLAT = [1.0 + i / 30 for i in range(30)]
SIGNED = [8.0, -6.0, 5.0, *(-0.3 + i / 40 for i in range(27))]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rank", "sketch"), [(1, 1), (3, 3), (3, 6), (0, 2)])
def test_no_error_where_the_rank_is_at_most_the_sketch(rank, sketch, seed):
    spectrum = [-4.0, 7.0, 2.5][:rank] + [0.0] * (30 - rank)
    estimate = trace(Matrix(rotated(spectrum, seed)), LIKE, sketch=sketch, samples=3, seed=seed)
    assert estimate.value == pytest.approx(sum(spectrum), abs=1e-12)
    assert estimate.captured == pytest.approx(estimate.value, abs=1e-12)
    assert estimate.standard_error < 1e-12


def test_a_sketch_of_the_whole_space_is_the_trace():
    estimate = trace(Matrix(rotated(FLAT)), LIKE, sketch=99, samples=2)
    assert estimate.value == pytest.approx(sum(FLAT), rel=1e-12)
    assert (estimate.sketch, estimate.products) == (30, 62)


def test_hutchinson_alone_is_exact_on_a_diagonal():
    """gᵀ diag(a) g = Σ aᵢ for every g of signs: the off-diagonal alone makes its variance."""
    estimate = trace(Diagonal(torch.tensor(FLAT, dtype=torch.float64)), LIKE, sketch=0, samples=2)
    assert estimate.value == pytest.approx(sum(FLAT), rel=1e-13)
    assert estimate.captured == 0 and estimate.standard_error < 1e-12


def test_hutchinsons_spread_has_its_closed_form():
    """Var gᵀAg = 2 (‖A‖² − Σ aᵢᵢ²) for independent signs."""
    matrix, n = rotated(SIGNED), 4000
    estimate = trace(Matrix(matrix), LIKE, sketch=0, samples=n)
    variance = 2 * float(matrix.square().sum() - matrix.diagonal().square().sum())
    assert estimate.standard_error == pytest.approx(math.sqrt(variance / n), rel=4 / math.sqrt(2 * n) * 1.5)
    assert abs(estimate.value - sum(SIGNED)) < 4 * estimate.standard_error


def test_two_samples_claim_the_right_variance_on_average():
    operator, n = Matrix(rotated(SIGNED)), 500
    traces = [trace(operator, LIKE, sketch=0, samples=2, seed=seed) for seed in range(n)]
    claimed = sum(f.standard_error**2 for f in traces) / n
    variance = 2 * float(operator.matrix.square().sum() - operator.matrix.diagonal().square().sum())
    # A square of one degree of freedom varies by √2 of its mean, more with the tails of a product of signs.
    assert claimed == pytest.approx(variance / 2, rel=5 * math.sqrt(2 / n))


@pytest.mark.parametrize("sketch", [0, 3, 6])
@pytest.mark.parametrize("spectrum", [DECAYING, SIGNED], ids=["decaying", "signed"])
def test_it_has_no_bias_and_its_standard_error_is_that_of_repetition(spectrum, sketch):
    operator, n = Matrix(rotated(spectrum)), 200
    traces = [trace(operator, LIKE, sketch=sketch, samples=8, seed=seed) for seed in range(n)]
    values = torch.tensor([f.value for f in traces], dtype=torch.float64)
    assert abs(float(values.mean()) - sum(spectrum)) < 4 * float(values.std()) / math.sqrt(n)
    claimed = torch.tensor([f.standard_error for f in traces], dtype=torch.float64).square().mean().sqrt()
    assert float(claimed) == pytest.approx(float(values.std()), rel=0.3)  # tails where a sketch misses


def test_where_few_eigenvalues_dominate_a_sketch_is_worth_its_products():
    operator = Matrix(rotated(DECAYING))
    sketched = [trace(operator, LIKE, sketch=8, samples=8, seed=seed) for seed in range(50)]
    plain = [trace(operator, LIKE, sketch=0, samples=24, seed=seed) for seed in range(50)]
    assert sketched[0].products == plain[0].products == 24
    squares = [sum((f.value - sum(DECAYING)) ** 2 for f in traces) for traces in (sketched, plain)]
    assert squares[0] < squares[1] / 9  # three times as accurate


def test_factors_around_the_operator_belong_to_the_trace():
    matrix, p = rotated(SIGNED), torch.linspace(0.2, 3.0, 30, dtype=torch.float64)
    estimate = trace(
        CongruenceOperator((Scalar(30, 3.0), Diagonal(p)), Matrix(matrix)), LIKE, sketch=30, samples=2
    )
    assert estimate.value == pytest.approx(9 * float((p**2) @ matrix.diagonal()), rel=1e-12)


def test_float32_is_right_to_its_rounding():
    like = torch.empty(0)
    estimate = trace(Matrix(rotated([5.0, 3.0] + [0.0] * 98).float()), like, sketch=2, samples=4)
    assert estimate.value == pytest.approx(8.0, rel=1e-5) and estimate.standard_error < 1e-4


@pytest.mark.parametrize(("sketch", "samples"), [(0, 2), (4, 3), (5, 9)])
def test_products_are_counted_one_by_one(sketch, samples):
    operator = Counting(Matrix(rotated(SIGNED)))
    estimate = trace(operator, LIKE, sketch=sketch, samples=samples)
    assert estimate.products == operator.count == 2 * sketch + samples
    assert estimate.seconds > 0


def test_the_same_seed_gives_the_same_bits_and_leaves_the_users_random_numbers_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (trace(Matrix(rotated(SIGNED)), LIKE, seed=seed) for seed in (1, 1, 2))
    assert (first.value, first.standard_error) == (again.value, again.standard_error)
    assert first.value != other.value
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_are_read_from_the_device_at_the_end_only():
    counts = []
    for more in (0, 5):
        with Reads() as reads:
            trace(Matrix(rotated(SIGNED)), LIKE, sketch=2 + more, samples=3 + more)
        counts.append(reads.count)
    assert counts == [3, 3]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("bad_at", [1, 3, 5, 8])
def test_a_product_that_is_not_finite_raises(bad_at, bad):
    with pytest.raises(FloatingPointError, match="not finite"):
        trace(Counting(Matrix(rotated(SIGNED)), bad, {bad_at}), LIKE, sketch=2, samples=4)


@pytest.mark.parametrize(("sketch", "samples"), [(-1, 5), (3, 1), (3, 0)])
def test_what_has_no_spread_is_refused(sketch, samples):
    with pytest.raises(ValueError, match=f"at least 2 samples; got {sketch} and {samples}"):
        trace(Scalar(3), LIKE, sketch=sketch, samples=samples)


def test_a_record_is_json_with_all_the_evidence():
    estimate = trace(Matrix(rotated(SIGNED)), LIKE)
    record = json.loads(json.dumps(estimate.as_record()))
    assert record["value"] == estimate.value and record["standard_error"] == estimate.standard_error
    assert (record["sketch"], record["samples"], record["products"]) == (10, 10, 30)
