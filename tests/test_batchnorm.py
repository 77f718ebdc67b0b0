"""Batch normalisation with second derivatives of our own: the same mathematics as a BN of primitives."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.nn import functional

from optim_family.batchnorm import second_order_batch_norm


def primitive(x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float) -> Tensor:
    dims, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
    centred = x - x.mean(dims, keepdim=True)
    y = centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt()
    return y if gamma is None or beta is None else y * gamma.view(shape) + beta.view(shape)


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 5), (4, 3, 2, 3), (3, 2, 2, 1, 2)])
@pytest.mark.parametrize("affine", ["trained", "frozen", "absent"])
def test_hessian_is_that_of_primitives_in_every_argument(shape: tuple[int, ...], affine: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, target = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    gamma, beta = torch.rand(2, shape[1], generator=generator, dtype=torch.float64) + 0.5
    size, channels = x.numel(), shape[1]

    def loss(flat: Tensor, ours: bool) -> Tensor:
        scale, shift = flat[size : size + channels], flat[size + channels :]
        pair = {"trained": (scale, shift), "frozen": (gamma, beta), "absent": (None, None)}[affine]
        if ours:
            with second_order_batch_norm():
                y = functional.batch_norm(flat[:size].view(shape), None, None, *pair, training=True, eps=1e-3)
        else:
            y = primitive(flat[:size].view(shape), *pair, 1e-3)
        return ((y - target) ** 3 + y.tanh()).sum()

    flat = torch.cat([x.flatten(), gamma, beta])
    got, want = (hessian(partial(loss, ours=ours), flat) for ours in (True, False))  # type: ignore[no-untyped-call]
    assert torch.allclose(got, want, rtol=1e-10, atol=1e-10 * float(want.abs().max()))


def test_value_and_gradient_are_bitwise_those_of_torch() -> None:
    x, u = torch.randn(2, 6, 3, 4, 4)
    x.requires_grad_()
    layer = nn.BatchNorm2d(3)
    plain = layer(x)
    with second_order_batch_norm():
        ours = layer(x)
    assert torch.equal(ours, plain)
    (want,) = torch.autograd.grad(plain, x, u)
    (got,) = torch.autograd.grad(ours, x, u)
    assert torch.equal(got, want)


def test_running_statistics_are_moved_in_training_and_used_in_evaluation_as_by_torch() -> None:
    ours, plain, x = nn.BatchNorm1d(3), nn.BatchNorm1d(3), torch.randn(8, 3)
    plain(x)
    with second_order_batch_norm():
        ours(x)
        assert torch.equal(ours.eval()(x), plain.eval()(x))
    assert all(map(torch.equal, ours.buffers(), plain.buffers()))


def test_a_unit_that_is_constant_has_finite_second_derivatives() -> None:
    x = torch.ones(8, 2, requires_grad=True)
    gamma = torch.ones(2)
    with second_order_batch_norm():
        y = functional.batch_norm(x, None, None, gamma, None, True, eps=torch.finfo(torch.float32).tiny)
    (dx,) = torch.autograd.grad((y * torch.randn(8, 2)).sum(), x, create_graph=True)
    (again,) = torch.autograd.grad(dx, x, torch.randn(8, 2) * 1e-3)
    assert again.isfinite().all()
