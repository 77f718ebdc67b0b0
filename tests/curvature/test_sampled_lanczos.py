import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from optim_family.curvature import sampled_lanczos
from optim_family.curvature.lanczos import Eigenpairs, top_eigenpairs
from optim_family.curvature.sampled_lanczos import can_sample, sample_size, sampled_top_eigenpairs
from optim_family.operators import HookedOperator, Matrix
from tests.helpers.operators_for_tests import SumOfMatrices, draw, rotated, top_eigenvalue

D, TERMS, RTOL = 200, 20, 1e-3
SEEDS = range(3)


def spectrum(kind: str) -> Tensor:
    values = torch.cat([torch.linspace(1, 0.55, 10), 0.5 * torch.arange(1, D - 9) ** -0.9]).double()
    if kind == "cluster":
        values[:5] = torch.tensor([1, 0.998, 0.996, 0.994, 0.99])
    if kind == "wide cluster":
        values[:10] = torch.linspace(1, 0.995, 10)
    if kind == "double":
        values[:2] = 1.0
    return values


@functools.cache
def problem(kind: str, seed: int = 0) -> SumOfMatrices:
    """Covariances of 400 samples with one spectrum each, and what makes the kind a trap."""
    generator = torch.Generator().manual_seed(1000 + seed)
    basis = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    factor = torch.sqrt(spectrum(kind))[:, None] * basis.T
    terms = []
    for _ in range(TERMS):
        samples = torch.randn(400, D, generator=generator, dtype=torch.float64) @ factor
        terms.append(samples.T @ samples / 400)
    u, v = basis[:, 60], basis[:, -6:]
    carriers = {"hidden in all": range(TERMS), "in one term": [7], "in two terms": [7, 11]}.get(kind, [])
    for index in carriers:
        terms[index] += 1.3 * TERMS / len(carriers) * torch.outer(u, u)
    if kind == "larger negative end":
        terms = [term - 3 * v @ v.T for term in terms]
    return SumOfMatrices(terms)


def search(operator: SumOfMatrices, **options: int) -> Eigenpairs:
    return sampled_top_eigenpairs(operator, draw(D), rtol=RTOL, **options)


KINDS = ["plain", "cluster", "double", "larger negative end", "hidden in all", "in one term"]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reading_that_converges_is_right_and_its_error_says_how_much(kind: str, size: int) -> None:
    for seed in SEEDS:
        operator = problem(kind, seed)
        truth = top_eigenvalue(operator.whole())
        pairs = search(operator, seed=seed, size=size)
        if pairs.converged:
            assert truth - pairs.errors[0] <= pairs.values[0] <= truth * (1 + 1e-12), seed
            assert pairs.errors[0] <= RTOL * pairs.values[0]


def test_without_the_deviation_of_the_sample_clusters_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for s: a search that trusts the sample converges to another member of a cluster."""
    monkeypatch.setattr(sampled_lanczos, "Z_SCORE", 0.0)
    wrong = 0
    for kind in ("cluster", "double", "plain"):
        for seed in SEEDS:
            operator = problem(kind, seed)
            pairs = search(operator, seed=seed)
            truth = top_eigenvalue(operator.whole())
            wrong += pairs.converged and truth - pairs.values[0] > max(pairs.errors[0], RTOL * truth)
    assert wrong


@pytest.mark.parametrize("kind", ["hidden in all", "in one term", "in two terms"])
def test_what_the_start_hardly_contains_is_found_with_few_full_products(kind: str) -> None:
    for seed in SEEDS:
        operator = problem(kind, seed)
        pairs = search(operator, seed=seed)
        assert pairs.converged and pairs.products <= 4
        assert pairs.values[0] == pytest.approx(top_eigenvalue(operator.whole()), rel=RTOL)


def test_without_the_look_at_each_term_a_single_carrier_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled_lanczos, "outliers", lambda sketches: [])
    operator = problem("in one term")
    missed = [search(operator, seed=seed) for seed in SEEDS]
    assert any(
        pairs.converged and pairs.values[0] < 0.9 * top_eigenvalue(operator.whole()) for pairs in missed
    )


def test_terms_that_stand_out_join_the_sample_with_their_own_weight() -> None:
    operator = problem("in one term")
    operator.parts.clear()
    pairs = search(operator, seed=1, size=2)
    (weights,) = operator.parts
    assert weights[7] == 1.0 and len(weights) == 3
    assert sum(weights.values()) == pytest.approx(TERMS)
    assert pairs.sample_share == pytest.approx(3 / TERMS)


def test_a_sample_of_everything_leaves_no_doubt() -> None:
    operator = problem("plain")
    pairs = search(operator, size=TERMS)
    truth = top_eigenvalue(operator.whole())
    assert pairs.converged and pairs.sample_share == pytest.approx(1.0)
    assert truth - pairs.errors[0] <= pairs.values[0] <= truth * (1 + 1e-12)
    assert pairs.products <= 3  # the noise, the eigenvector, and at most one correction


def test_the_evidence_is_that_of_the_vector() -> None:
    operator = problem("hidden in all")
    pairs = search(operator)
    (x,) = pairs.vectors
    whole = operator.whole()
    assert float(x.norm()) == pytest.approx(1.0)
    assert float(x @ whole @ x) == pytest.approx(pairs.values[0], rel=1e-12)
    assert pairs.residuals[0] == pytest.approx(float((whole @ x - pairs.values[0] * x).norm()), rel=1e-9)
    assert pairs.bound == float("inf") and pairs.method == "sampled"


def test_products_are_counted_and_the_hook_runs_before_each_of_them() -> None:
    operator = problem("hidden in all")
    operator.full, calls = 0, list[None]()
    hooked = HookedOperator(operator, lambda: calls.append(None))
    pairs = sampled_top_eigenpairs(hooked, draw(D), rtol=RTOL)
    assert pairs.products == operator.full
    assert len(calls) == pairs.products + pairs.sample_products
    again = search(operator)
    assert again.values == pairs.values  # the same seed, the same reading
    assert search(operator, seed=5).values != pairs.values


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_further_eigenvalues_are_right_for_half_of_the_products_of_lanczos(kind: str, k: int) -> None:
    for seed in SEEDS:
        operator = problem(kind, seed)
        truth = torch.linalg.eigvalsh(operator.whole()).flip(0)[:k].numpy()
        pairs = search(operator, k=k, seed=seed)
        assert pairs.converged and pairs.vectors.shape == (k, D), seed
        short = truth - np.array(pairs.values)
        assert (short >= -1e-12 * truth).all() and (short <= pairs.errors).all(), seed
        assert (pairs.errors <= RTOL * truth).all()
        cost = pairs.products + pairs.sample_products * pairs.sample_share
        assert cost < 0.5 * top_eigenpairs(operator, draw(D), k=k, rtol=RTOL).products


def test_a_multiple_eigenvalue_counts_as_often_as_it_occurs() -> None:
    whole = rotated([1.0, 1.0, *(0.5 / i for i in range(1, D - 1))])
    operator = SumOfMatrices([whole.double()] * TERMS)
    pairs = search(operator, k=3)
    assert pairs.converged and pairs.values == pytest.approx([1.0, 1.0, 0.5], rel=RTOL)
    gram = pairs.vectors @ pairs.vectors.T
    assert torch.allclose(gram, torch.eye(3, dtype=gram.dtype), atol=1e-9)


def test_eigenvalues_below_zero_count_too() -> None:
    whole = rotated([1.0, 0.8, -0.1, -0.2, *[-0.3] * (D - 4)]).double()
    pairs = search(SumOfMatrices([whole] * TERMS), k=4, size=TERMS)
    assert pairs.converged and pairs.values == pytest.approx([1.0, 0.8, -0.1, -0.2], rel=RTOL)


def test_too_few_directions_of_the_sample_are_left_to_lanczos() -> None:
    rank_two = torch.diag(torch.cat([torch.ones(2), torch.zeros(D - 2)])).double()
    assert not search(SumOfMatrices([rank_two] * TERMS), k=4).converged


def test_it_gives_up_after_eight_proposals() -> None:
    pairs = search(problem("cluster", 1), seed=1, size=1)
    assert not pairs.converged and not pairs.values
    assert pairs.products == 1 + sampled_lanczos.MAX_PROPOSALS


def test_it_gives_up_at_once_where_more_proposals_would_be_needed() -> None:
    pairs = search(problem("wide cluster"), seed=0, size=1)
    assert not pairs.converged and pairs.products == 5  # more than four other members are above θ


def test_products_that_contradict_each_other_are_left_to_lanczos() -> None:
    operator = SumOfMatrices(problem("hidden in all").terms * TERMS)
    operator.terms = operator.terms + 0.02 * draw(TERMS, D, D)
    assert not search(operator).converged


@pytest.mark.parametrize("matrix", [torch.zeros(D, D), -rotated(range(1, D + 1))])
def test_an_operator_without_a_positive_eigenvalue_is_left_to_lanczos(matrix: Tensor) -> None:
    assert not search(SumOfMatrices([matrix.double()] * 8)).converged


def test_a_product_that_is_not_finite_is_refused() -> None:
    operator = SumOfMatrices(problem("plain").terms)
    operator.terms[3, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError):
        search(operator)


def test_the_sample_grows_with_the_terms_within_limits() -> None:
    assert [sample_size(n) for n in (8, 20, 50, 100, 200, 5000)] == [1, 2, 5, 8, 8, 8]


def test_what_can_be_sampled() -> None:
    operator = problem("plain")
    assert can_sample(operator, 1, 1e-3)
    assert can_sample(SumOfMatrices(torch.zeros(8, 250, 250)), 4, 1e-3)
    assert not can_sample(operator, 4, 1e-3)  # 200 weights are too few
    assert not can_sample(SumOfMatrices(torch.zeros(8, 300, 300)), 5, 1e-3)
    assert not can_sample(operator, 1, 1e-6)
    assert not can_sample(SumOfMatrices(operator.terms[:7]), 1, 1e-3)
    assert not can_sample(SumOfMatrices(operator.terms[:15]), 1, 1e-3, paying=True)
    assert can_sample(SumOfMatrices(operator.terms[:16]), 1, 1e-3, paying=True)
    assert not can_sample(SumOfMatrices(operator.terms[:, :100, :100]), 1, 1e-3)
    assert not can_sample(Matrix(operator.whole()), 1, 1e-3)
