import pytest
import torch
from torch import Tensor

from optim_family.curvature.surrogate_space import SMALLEST_FACTOR, SurrogateSpace
from optim_family.operators import Matrix
from tests.helpers.operators_for_tests import draw, top_eigenvalue

D, K = 12, 3
EYE = torch.eye(D, dtype=torch.float64)


def symmetric(seed: int) -> Tensor:
    return draw(D, D, seed=seed) + draw(D, D, seed=seed).T


A = symmetric(0)
B = A + 0.3 * symmetric(1)


def space_of(cheap: Tensor = B, known: int = K) -> tuple[SurrogateSpace, Tensor]:
    """Z spans everything, so that its projections are the maps themselves; Q is random. Returns Q [k, d]."""
    space = SurrogateSpace(Matrix(cheap), D, K, draw(D))
    for seed in range(D):
        assert space.expand(draw(D, seed=10 + seed))
    for seed in range(known):
        coordinates = space.direction(draw(D, seed=50 + seed).numpy())
        space.learn(coordinates, A @ space.vectors(coordinates[:, None])[0])
    return space, space.vectors(space.coordinates[:, :known])


def dense(space: SurrogateSpace, factor: float, shift: float = 0.0) -> Tensor:
    """The surrogate out of its eigenpairs."""
    values, coordinates = space.ritz(factor, shift)
    vectors = space.vectors(coordinates)
    return vectors.T @ torch.diag(torch.from_numpy(values)) @ vectors


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_the_surrogate_is_the_secant_update_of_the_cheap_operator(shift: float) -> None:
    space, q = space_of()
    on = q.T @ q
    off = EYE - on
    expected = on @ A + A @ on - on @ A @ on + 0.6 * off @ B @ off + shift * off
    assert torch.allclose(dense(space, 0.6, shift), expected, atol=1e-12)


def test_it_is_exact_on_the_known_vectors_whatever_the_factor() -> None:
    space, q = space_of()
    assert torch.allclose(q @ q.T, torch.eye(K, dtype=torch.float64), atol=1e-13)
    for factor in (0.3, 1.0):
        assert torch.allclose(dense(space, factor) @ q.T, A @ q.T, atol=1e-12)


def test_it_is_the_operator_itself_if_the_cheap_one_is() -> None:
    space, _ = space_of(cheap=A)
    assert torch.allclose(dense(space, 1.0), A, atol=1e-12)
    assert space.factor == pytest.approx(1.0)


def test_with_a_shift_above_the_difference_off_q_no_eigenvalue_is_below_that_of_the_operator() -> None:
    space, q = space_of()
    off = EYE - q.T @ q
    shift = top_eigenvalue(off @ (A - B) @ off)
    upper = torch.linalg.eigvalsh(dense(space, 1.0, shift))
    assert bool((upper >= torch.linalg.eigvalsh(A) - 1e-12).all())
    lower = torch.linalg.eigvalsh(dense(space, 1.0, shift - 2 * abs(shift)))
    assert not bool((lower >= torch.linalg.eigvalsh(A) - 1e-12).all())


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_residuals_in_a_span_are_those_of_the_dense_surrogate(shift: float) -> None:
    whole, q = space_of()
    surrogate = dense(whole, 0.6, shift)
    space = SurrogateSpace(Matrix(B), 6, K, draw(D))
    for vector in (*q, *(draw(D, seed=90 + i) for i in range(3))):
        space.expand(vector)
    for i in range(K):
        unit = torch.zeros(6, dtype=torch.float64)
        unit[i] = 1.0
        coordinates = space.direction(unit.numpy())
        space.learn(coordinates, A @ space.vectors(coordinates[:, None])[0])
    values, coordinates = space.ritz(0.6, shift)
    x = space.vectors(coordinates[:, :4])
    expected = x @ surrogate - torch.from_numpy(values[:4].copy())[:, None] * x
    assert torch.allclose(space.residuals(values[:4], coordinates[:, :4], 0.6, shift), expected, atol=1e-12)
    assert float((expected @ space.basis.T).norm()) < 1e-12  # a Ritz pair of the span


def test_ritz_values_on_the_known_vectors_are_those_of_the_operator_and_never_above_it() -> None:
    space, q = space_of()
    values, coordinates = space.exact()
    assert torch.allclose(torch.from_numpy(values).flip(0), torch.linalg.eigvalsh(q @ A @ q.T), atol=1e-12)
    assert values[0] <= top_eigenvalue(A) + 1e-12
    x = space.vectors(coordinates[:, :1])[0]
    assert space.residual_of_exact(values[0], coordinates[:, 0]) == pytest.approx(
        float((A @ x - values[0] * x).norm()), rel=1e-10
    )


def test_the_factor_undoes_a_scale_within_its_limits() -> None:
    assert space_of(cheap=1.6 * A)[0].factor == pytest.approx(1 / 1.6)
    assert space_of(cheap=0.5 * A)[0].factor == 1.0
    assert space_of(cheap=50.0 * A)[0].factor == SMALLEST_FACTOR


def test_learning_says_how_far_the_cheap_operator_was_off() -> None:
    space, q = space_of(known=2)
    coordinates = space.direction(draw(D, seed=52).numpy())
    vector = space.vectors(coordinates[:, None])[0]
    mismatch = space.learn(coordinates, A @ vector)
    off = EYE - q.T @ q - torch.outer(vector, vector)
    assert mismatch == pytest.approx(float((off @ (A - space.factor * B) @ vector).norm()), rel=1e-10)


def test_products_that_are_not_symmetric_are_noticed() -> None:
    space, _ = space_of(known=2)
    assert space.asymmetry < 1e-13
    coordinates = space.direction(draw(D, seed=52).numpy())
    space.learn(coordinates, (A + draw(D, D, seed=5)) @ space.vectors(coordinates[:, None])[0])
    assert space.asymmetry > 0.01


def test_a_vector_of_the_span_adds_nothing() -> None:
    space = SurrogateSpace(Matrix(B), D, K, draw(D))
    first = draw(D, seed=10)
    assert space.expand(first) == pytest.approx(float(first.norm()))
    assert space.expand(2.0 * first) == 0.0 and space.filled == 1
