"""The generalised sharpness against closed forms, brute force, and the views that it generalises."""

import itertools
import math

import pytest
import torch

from optim_family.geometry import (
    Decay,
    DiagonalMetric,
    Geometry,
    MetricNorm,
    ScalarMetric,
    UnknownMetric,
    normalized_threshold,
)
from optim_family.norms import MaxNorm, Norm, SpectralNorm
from optim_family.operators import Matrix
from optim_family.sharpness.generalized import maximize_over_norm
from optim_family.sharpness.generalized_probe import GeneralizedProbe
from optim_family.sharpness.probe import Probe
from optim_family.sharpness.probe_set import ProbeSet
from tests.helpers.operators_for_tests import Counting, Sloping, draw, rotated, top_eigenvalue

D = 12
P = torch.linspace(0.3, 5.0, D, dtype=torch.float64)
W, G = draw(D, seed=8), draw(D, seed=9)
H = rotated([9.0, 7.0, 4.0, 2.0, *[0.5] * (D - 6), -1.0, -2.0])


def starts(seed=0):
    return (draw(D, seed=1000 * seed + count) for count in itertools.count())


def search(matrix, norm, seed=0, **options):
    options = {"eigen_start": draw(len(matrix), seed=77)} | options
    return maximize_over_norm(Matrix(matrix), norm, starts(seed), **options)


def signs(dim):
    return torch.tensor(list(itertools.product([1.0, -1.0], repeat=dim)), dtype=torch.float64)


def in_max_norm(lr=0.1, shrink=0.0, **options):
    threshold = normalized_threshold(lr, shrink=shrink)
    return Geometry.in_norm(MaxNorm(D), threshold, Decay(shrink), **options)


@pytest.mark.parametrize("metric", [ScalarMetric(D), DiagonalMetric(P)], ids=["l2", "metric"])
def test_frank_wolfe_finds_the_eigenvalue_where_the_norm_is_a_quadratic_form(metric):
    matrix = H + 3 * torch.eye(D, dtype=torch.float64)  # positive definite: the power method
    root = metric.power(-0.5).dense()
    found = search(matrix, MetricNorm(metric), budget=2000, rtol=1e-12)
    assert found.value == pytest.approx(top_eigenvalue(root @ matrix @ root), rel=1e-8)


@pytest.mark.parametrize("metric", [ScalarMetric(D), ScalarMetric(D, 3.0), DiagonalMetric(P)])
def test_in_a_metric_the_reading_is_that_of_the_preconditioned_view(metric):
    declared = Geometry(metric, 20.0, Decay(0.0))
    own = Probe("preconditioned")(Matrix(H), W, declared)
    for geometry in (declared, Geometry.in_norm(MetricNorm(metric), 20.0, Decay(0.0), normalized=False)):
        reading = GeneralizedProbe()(Matrix(H), W, geometry)
        assert (reading.value, reading.ratio, reading.note) == (own.value, own.ratio, "")


def test_a_diagonal_hessian_has_its_trace():
    h = torch.linspace(0.1, 3, D, dtype=torch.float64)
    found = search(torch.diag(h), MaxNorm(D))
    assert found.value == pytest.approx(float(h.sum()), rel=1e-12) and found.converged


def test_a_rank_one_hessian_has_the_square_of_the_dual_norm():
    u = draw(D, seed=3)
    for norm in (MaxNorm(D), SpectralNorm([(4, 3)], [0.7])):
        assert search(torch.outer(u, u), norm).value == pytest.approx(norm.dual(u) ** 2, rel=1e-9)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 6)])
def test_the_identity_on_matrices_has_the_smaller_side(shape):
    found = search(2.5 * torch.eye(D, dtype=torch.float64), SpectralNorm([shape], [1.0]))
    assert found.value == pytest.approx(2.5 * min(shape), rel=1e-9)


def test_it_is_a_lower_bound_that_nearly_always_is_the_maximum_over_signs():
    """Positive semidefinite: the maximum lies at a vertex, and there are 2¹¹ to try."""
    corners, shares = signs(D), []
    for seed in range(50):
        a = draw(D, D, seed=seed)
        matrix = a @ a.T / D
        best = float(((corners @ matrix) * corners).sum(1).max())
        shares.append(search(matrix, MaxNorm(D), seed).value / best)
    assert max(shares) <= 1 + 1e-12
    assert sum(share > 1 - 1e-9 for share in shares) >= 43 and min(shares) > 0.9


def open_loop(matrix, norm, seed, budget):
    """The reference: step sizes 2/(k + 2), five starts."""
    best, candidates = -math.inf, starts(seed)
    for _ in range(5):
        v = next(candidates)
        v = v / norm.value(v)
        for k in range(budget // 5):
            best = max(best, float(v @ matrix @ v) / norm.value(v) ** 2)
            v = v + 2 / (k + 2) * (norm.maximizer(matrix @ v) - v)
    return best


def test_the_line_search_finds_more_than_open_loop_steps():
    wins = losses = 0
    for seed in range(40):
        a = draw(D, D, seed=seed)
        found, other = (
            search(a + a.T, MaxNorm(D), seed, budget=100).value,
            open_loop(a + a.T, MaxNorm(D), seed, 100),
        )
        wins, losses = wins + (found > other * (1 + 1e-9)), losses + (other > found * (1 + 1e-9))
    assert wins >= 3 * losses


def test_the_witness_the_floor_and_the_bound_are_what_they_say():
    for seed in range(10):
        matrix = rotated(draw(D, seed=seed).tolist(), seed)
        found = search(matrix, MaxNorm(D), seed)
        assert MaxNorm(D).value(found.witness) == pytest.approx(1, rel=1e-12)
        assert float(found.witness @ matrix @ found.witness) == pytest.approx(found.value, rel=1e-9)
        assert found.floor <= found.value * (1 + 1e-12)
        corners = signs(D)
        assert float(((corners @ matrix) * corners).sum(1).max()) <= found.value + found.bound


def test_the_budget_holds_and_counts():
    for budget in (2, 3, 10, 57):
        counting = Counting(Matrix(H))
        found = maximize_over_norm(counting, MaxNorm(D), starts(), eigen_start=W, budget=budget, rtol=1e-12)
        assert found.products == counting.count <= budget
    for budget in (0, 1, -1):
        with pytest.raises(ValueError, match="a budget of at least 2"):
            search(H, MaxNorm(D), budget=budget)
    for budget in (0, 2.5, "9", True):
        with pytest.raises(ValueError, match=f"a budget of at least 2 products; got {budget!r}"):
            ProbeSet(["raw"], budget=budget)


def test_starts_that_disagree_are_a_spread_and_no_convergence():
    """Two far minima: two blocks of one sign each, joined weakly, so that starts end in several maxima."""
    a = draw(D, D, seed=5)
    found = search(a + a.T, MaxNorm(D), budget=60)
    assert found.spread > 0
    assert not search(a + a.T, MaxNorm(D), budget=13).converged


def test_a_normalised_step_divides_by_the_dual_norm():
    reading = GeneralizedProbe()(Sloping(Matrix(H), G), W, in_max_norm())
    plain = GeneralizedProbe()(Sloping(Matrix(H), G), W, in_max_norm(normalized=False))
    dual = float(G.abs().sum())
    assert reading.dual == pytest.approx(dual) and plain.dual is None
    for name in ("value", "floor", "spread", "bound", "residual"):
        assert getattr(reading, name) * dual == pytest.approx(getattr(plain, name), rel=1e-12), name
    assert reading.ratio == pytest.approx(reading.value / 20) and "lower bound" in reading.note


def test_without_a_threshold_it_says_why():
    geometry = Geometry.in_norm(MaxNorm(D), math.inf, None, no_threshold="momentum")
    reading = GeneralizedProbe()(Sloping(Matrix(H), G), W, geometry)
    assert reading.ratio is reading.threshold is None
    assert reading.note == "lower bound; no threshold: momentum"


def test_it_stands_beside_other_views_and_continues_to_the_last_bit():
    names = ["raw", "generalized"]
    probe, other = ProbeSet(names), ProbeSet(names)
    operator = Sloping(Matrix(H), G)
    first = probe(operator, W, in_max_norm())
    assert list(first) == names and first["raw"].value == pytest.approx(9.0)
    other.load_state_dict(probe.state_dict())
    again, restored = (p(operator, W, in_max_norm())["generalized"] for p in (probe, other))
    assert again.as_record() | {"seconds": 0} == restored.as_record() | {"seconds": 0}


class Negative(Norm):
    dim = D

    def value(self, step):
        return -1.0

    def dual(self, gradient):
        return 1.0

    def maximizer(self, gradient):
        return gradient


class NegativeDual(Norm):
    dim = D

    def value(self, step):
        return float(step.norm())

    def dual(self, gradient):
        return -1.0

    def maximizer(self, gradient):
        return gradient


def test_what_cannot_be_measured_is_refused_in_one_line():
    probe = GeneralizedProbe()
    with pytest.raises(ValueError, match="is not a norm"):
        search(H, Negative())
    with pytest.raises(ValueError, match=r"NegativeDual is not a norm: N\*\(g\) = -1 at the gradient"):
        probe(Sloping(Matrix(H), G), W, Geometry.in_norm(NegativeDual(), 1.0, None))
    with pytest.raises(ValueError, match="not known here"):
        probe(Matrix(H), W, in_max_norm())
    at_rest = probe(Sloping(Matrix(H), 0 * G), W, in_max_norm())
    assert math.isnan(at_rest.value) and math.isnan(at_rest.ratio) and "gradient is zero" in at_rest.note
    with pytest.raises(ValueError, match="a norm or a metric: because"):
        probe(Matrix(H), W, Geometry(UnknownMetric(D, "because"), math.inf, None))
    with pytest.raises(ValueError, match="needs an optimizer with a norm or a metric"):
        probe(Matrix(H), W)
    with pytest.raises(FloatingPointError):
        probe(Sloping(Matrix(H), G * math.nan), W, in_max_norm())
