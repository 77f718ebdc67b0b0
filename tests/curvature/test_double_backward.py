"""Second derivatives of our own are those of batch norm from primitives, and of torch's convolution."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from optim_family.curvature import conv2d
from optim_family.curvature.double_backward import second_derivatives


def derivatives(loss: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient [d] and Hessian [d, d]."""
    (gradient,) = torch.autograd.grad(loss, flat, create_graph=True)
    rows = [torch.autograd.grad(g, flat, retain_graph=True)[0] for g in gradient]
    return gradient.detach(), torch.stack(rows)


# --- batch normalisation ----------------------------------------------------------------------------------


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
            with second_derivatives():
                y = functional.batch_norm(flat[:size].view(shape), None, None, *pair, training=True, eps=1e-3)
        else:
            y = primitive(flat[:size].view(shape), *pair, 1e-3)
        return ((y - target) ** 3 + y.tanh()).sum()

    flat = torch.cat([x.flatten(), gamma, beta]).requires_grad_()
    (_, got), (_, want) = (derivatives(loss(flat, ours), flat) for ours in (True, False))
    assert torch.allclose(got, want, rtol=1e-10, atol=1e-10 * float(want.abs().max()))


def test_value_and_gradient_are_bitwise_those_of_torch() -> None:
    x, u = torch.randn(2, 6, 3, 4, 4)
    x.requires_grad_()
    layer = nn.BatchNorm2d(3)
    plain = layer(x)
    with second_derivatives():
        ours = layer(x)
    assert torch.equal(ours, plain)
    (want,) = torch.autograd.grad(plain, x, u)
    (got,) = torch.autograd.grad(ours, x, u)
    assert torch.equal(got, want)


def test_running_statistics_are_moved_in_training_and_used_in_evaluation_as_by_torch() -> None:
    ours, plain, x = nn.BatchNorm1d(3), nn.BatchNorm1d(3), torch.randn(8, 3)
    plain(x)
    with second_derivatives():
        ours(x)
        assert torch.equal(ours.eval()(x), plain.eval()(x))
    assert all(map(torch.equal, ours.buffers(), plain.buffers()))


def test_a_unit_that_is_constant_has_finite_second_derivatives() -> None:
    x = torch.ones(8, 2, requires_grad=True)
    gamma = torch.ones(2)
    with second_derivatives():
        y = functional.batch_norm(x, None, None, gamma, None, True, eps=torch.finfo(torch.float32).tiny)
    (dx,) = torch.autograd.grad((y * torch.randn(8, 2)).sum(), x, create_graph=True)
    (again,) = torch.autograd.grad(dx, x, torch.randn(8, 2) * 1e-3)
    assert again.isfinite().all()


# --- convolution ------------------------------------------------------------------------------------------

# What is convolved, over (2, channels, 5, 6): weights and options.
CONVOLUTIONS = {
    "plain": ((3, 2, 3, 3), {}),
    "padded": ((3, 2, 3, 3), {"padding": 1}),
    "wide": ((16, 2, 3, 3), {"padding": 1}),  # more weights than numbers in the images
    "strided": ((3, 2, 3, 3), {"stride": (2, 1), "padding": (0, 2)}),
    "dilated": ((2, 2, 2, 3), {"dilation": (2, 1), "padding": 1}),
    "one by one": ((4, 2, 1, 1), {"stride": 2}),
    "one-number sequences": ((3, 2, 3, 3), {"stride": (2,), "padding": (1,)}),
    "grouped": ((4, 1, 3, 3), {"groups": 2, "padding": 1}),
    "same": ((3, 2, 3, 3), {"padding": "same"}),
    "unbatched": ((3, 2, 3, 3), {"padding": 1}),
}


@pytest.mark.parametrize("places", [0, 10**9], ids=["library's kernel", "matrix product"])
@pytest.mark.parametrize("trained", ["all", "weights", "input", "bias"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolution_is_that_of_torch_with_two_derivatives(
    kind: str, trained: str, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv2d, "PLACES", places)
    monkeypatch.setattr(conv2d, "PATCHES", 0)
    shape, options = CONVOLUTIONS[kind]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(
        (2, 5, 6) if kind == "unbatched" else (2, 2, 5, 6), generator=generator, dtype=torch.float64
    )
    w, b = (torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, shape[:1]))
    parts = {"all": (x, w, b), "weights": (w,), "input": (x,), "bias": (b,)}[trained]

    def output_and_derivatives(flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mine = {
            id(p): v.view(p.shape) for p, v in zip(parts, flat.split([p.numel() for p in parts]), strict=True)
        }
        y = functional.conv2d(*(mine.get(id(t), t) for t in (x, w, b)), **options)
        return y, *derivatives((y**3 + y.tanh()).sum(), flat)

    flat = torch.cat([p.flatten() for p in parts]).requires_grad_()
    want = output_and_derivatives(flat)
    with second_derivatives():
        got = output_and_derivatives(flat)
    for ours, original in zip(got, want, strict=True):
        torch.testing.assert_close(ours, original, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_channels_are_last_on_a_cpu(channels: int) -> None:
    x, w = torch.randn(2, channels, 5, 5), torch.randn(3, channels, 3, 3, requires_grad=True)
    with second_derivatives():
        assert functional.conv2d(x, w).is_contiguous(memory_format=torch.channels_last)


def test_a_convolution_without_a_bias_of_a_linear_loss_has_a_hessian_in_weights_and_input_only() -> None:
    """The gradient of y is constant there, and what does not depend on the weights has no graph."""
    x, w = torch.randn(1, 2, 4, 4, requires_grad=True), torch.randn(3, 2, 3, 3, requires_grad=True)
    with second_derivatives():
        loss = functional.conv2d(x, w).sum()
        dx, dw = torch.autograd.grad(loss, (x, w), create_graph=True)
        (mixed,) = torch.autograd.grad(dx.sum(), w)
    assert not mixed.equal(torch.zeros_like(mixed)) and mixed.shape == w.shape and dw.requires_grad
    assert torch.allclose(mixed, torch.full_like(mixed, 4.0))  # each weight meets the 2 × 2 places


def test_a_convolution_inside_vmap_and_under_autocast_is_left_to_torch() -> None:
    x, w = torch.randn(4, 1, 2, 5, 5), torch.randn(4, 3, 2, 3, 3)
    v = w[0].clone().requires_grad_()
    want = torch.stack([functional.conv2d(a, b) for a, b in zip(x, w, strict=True)])
    with second_derivatives():
        got = torch.func.vmap(functional.conv2d)(x, w)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = functional.conv2d(x[0], v)
        (dv,) = torch.autograd.grad(low.square().sum(), v, create_graph=True)
    torch.testing.assert_close(got, want)
    assert low.dtype == torch.bfloat16 and dv.dtype == torch.float32


def test_the_functions_of_torch_are_put_back_also_after_an_error() -> None:
    before = functional.batch_norm, functional.conv2d
    with pytest.raises(RuntimeError), second_derivatives():
        assert functional.conv2d is not before[1]
        functional.conv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3))  # the kernel is larger
    assert (functional.batch_norm, functional.conv2d) == before


# --- layer and instance normalisation ---------------------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["layer", "layers", "instance"])
def test_layer_and_instance_norm_are_those_of_torch_with_two_derivatives(kind: str, affine: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    shape = {"layer": (4,), "layers": (3, 4), "instance": (3,)}[kind]
    weight, bias = torch.rand(2, *shape, generator=generator, dtype=torch.float64) + 0.5
    size, numbers = x.numel(), weight.numel()

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [size, numbers, numbers])
        pair = (part.view(shape) for part in parts[1:]) if affine else (None, None)
        if kind == "instance":
            y = functional.instance_norm(parts[0].view(x.shape), None, None, *pair)
        else:
            y = functional.layer_norm(parts[0].view(x.shape), shape, *pair)
        return (y**3 + y.tanh()).sum()

    flat = torch.cat([x.flatten(), weight.flatten(), bias.flatten()]).requires_grad_()
    want_loss = loss(flat)
    want = (want_loss, *derivatives(want_loss, flat))
    with second_derivatives():
        got_loss = loss(flat)
        got = (got_loss, *derivatives(got_loss, flat))
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


def test_normalisations_of_one_value_or_none_are_left_to_torch() -> None:
    with second_derivatives():
        assert torch.equal(functional.layer_norm(torch.ones(2, 1), (1,)), torch.zeros(2, 1))
        assert functional.layer_norm(torch.ones(0, 3), (3,)).shape == (0, 3)
        with pytest.raises(ValueError, match="more than 1 spatial element"):
            functional.instance_norm(torch.ones(2, 3, 1))
