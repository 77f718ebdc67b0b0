from typing import Any

import pytest
import torch
from torch import Tensor

from optim_family.operators import (
    CongruenceOperator,
    Diagonal,
    HookedOperator,
    Matrix,
    Scalar,
    SymmetricOperator,
    TangentProjection,
)
from tests.helpers.operators_for_tests import Sloping, draw

D = 7


def symmetric(seed: int = 1) -> Tensor:
    a = draw(D, D, seed=seed)
    return a + a.T


def tangent(weights: Tensor) -> Tensor:
    return torch.eye(D, dtype=torch.float64) - torch.outer(weights, weights) / (weights @ weights)


CASES: list[tuple[SymmetricOperator, Tensor]] = [
    (Scalar(D), torch.eye(D, dtype=torch.float64)),
    (Scalar(D, -2.5), -2.5 * torch.eye(D, dtype=torch.float64)),
    (Diagonal(draw(D)), torch.diag(draw(D))),
    (Matrix(symmetric()), symmetric()),
    (TangentProjection(3.0 * draw(D)), tangent(draw(D))),
    (CongruenceOperator((), Matrix(symmetric())), symmetric()),
]


@pytest.mark.parametrize(("operator", "matrix"), CASES, ids=lambda case: type(case).__name__)
def test_each_operator_is_its_matrix_on_every_vector(operator: SymmetricOperator, matrix: Tensor) -> None:
    v = draw(D, seed=5)
    torch.testing.assert_close(operator.dense(), matrix, rtol=0, atol=1e-14)
    torch.testing.assert_close(operator @ v, matrix @ v, rtol=1e-13, atol=1e-13)
    assert operator.dim == D


@pytest.mark.parametrize(("operator", "matrix"), CASES, ids=lambda case: type(case).__name__)
def test_no_product_changes_the_vector_it_is_given(operator: SymmetricOperator, matrix: Tensor) -> None:
    v = draw(D, seed=6)
    operator @ v
    assert torch.equal(v, draw(D, seed=6))


def test_a_sandwich_applies_its_first_factor_outermost_on_both_sides() -> None:
    p, w, h = draw(D).abs() + 0.1, draw(D, seed=2), symmetric()
    sandwich = CongruenceOperator((Diagonal(p), TangentProjection(w)), Matrix(h))
    expected = torch.diag(p) @ tangent(w) @ h @ tangent(w) @ torch.diag(p)
    torch.testing.assert_close(sandwich.dense(), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(
        sandwich.dense(), tangent(w) @ torch.diag(p) @ h @ torch.diag(p) @ tangent(w)
    )  # the factors do not commute: the order is really tested


def test_the_tangent_projection_removes_the_weights_and_is_idempotent() -> None:
    w = draw(D)
    projection = TangentProjection(w)
    assert (projection @ w).abs().max() < 1e-14
    v = projection @ draw(D, seed=3)
    torch.testing.assert_close(projection @ v, v, rtol=0, atol=1e-14)


def test_dense_keeps_the_dtype_it_is_asked_for() -> None:
    assert Scalar(3, 2.0).dense(torch.float32).dtype == torch.float32


@pytest.mark.parametrize("v", [draw(D + 1), draw(D, 1), draw(1, D), torch.tensor(1.0)])
@pytest.mark.parametrize("operator", [case[0] for case in CASES], ids=lambda o: type(o).__name__)
def test_a_vector_of_another_shape_is_refused_with_both_shapes(
    operator: SymmetricOperator, v: Tensor
) -> None:
    with pytest.raises(ValueError) as caught:
        operator @ v
    assert type(operator).__name__ in str(caught.value)
    assert f"[{D}]" in str(caught.value)
    assert str(list(v.shape)) in str(caught.value)


def test_a_sandwich_refuses_a_factor_of_another_dimension() -> None:
    with pytest.raises(
        ValueError, match="factor Scalar has dimension 5, the operator between the factors has 7"
    ):
        CongruenceOperator((Scalar(D), Scalar(5)), Scalar(D))


def test_a_new_operator_is_one_class_with_one_method() -> None:
    class Negated(SymmetricOperator):
        def __init__(self, inner: SymmetricOperator) -> None:
            self.inner, self.dim = inner, inner.dim

        def apply(self, v: Tensor) -> Tensor:
            return -(self.inner @ v)

    assert torch.equal(Negated(Matrix(symmetric())).dense(), -symmetric())
    assert Negated(Matrix(symmetric())).gradient() is None
    unfinished: Any = SymmetricOperator
    with pytest.raises(TypeError, match="abstract"):
        unfinished()


def test_a_gradient_passes_outwards_through_what_stands_around_its_operator() -> None:
    one, other, slope = Matrix(symmetric(1)), Matrix(symmetric(2)), draw(D, seed=3)
    inner = Sloping(Matrix(symmetric()), slope)
    around = CongruenceOperator((one, other), HookedOperator(inner, lambda: None)).gradient()
    assert around is not None and torch.equal(around, one @ (other @ slope))
    assert CongruenceOperator((one,), HookedOperator(Matrix(symmetric()), lambda: None)).gradient() is None


def test_a_watched_operator_calls_before_every_product_and_may_refuse_it() -> None:
    calls = []
    watched = HookedOperator(Scalar(2, 3.0), lambda: calls.append(1))
    torch.testing.assert_close(watched.dense(), 3 * torch.eye(2, dtype=torch.float64))
    assert len(calls) == 2

    def refuse() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        HookedOperator(Scalar(2), refuse) @ torch.ones(2)
