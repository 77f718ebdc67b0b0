import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from optim_family.curvature import hessian as module
from optim_family.curvature.chunked_loss import chunk_losses
from optim_family.curvature.hessian import Hessian
from optim_family.curvature.memory import SavedTensors
from optim_family.space import ParameterSpace, flatten, unflatten
from tests.helpers.operators_for_tests import draw

Loss = Callable[[Tensor, Tensor], Tensor]
N, EXACT = 10, 1e-10


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def split(x: Tensor, y: Tensor, *sizes: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def operator(
    model: nn.Module, loss_fn: Loss, chunks: list[tuple[Tensor, Tensor]], hvp: str = "auto"
) -> Hessian:
    return Hessian(chunk_losses(model, loss_fn, chunks), ParameterSpace.of(model).tensors, hvp)


def reference(model: nn.Module, loss_fn: Loss, x: Tensor, y: Tensor) -> Tensor:
    """The dense Hessian by torch's own functional differentiation of the loss on all examples at once."""
    space = ParameterSpace.of(model)

    def loss(w: Tensor) -> Tensor:
        values = dict(zip(space.names, unflatten(w, space.tensors), strict=True))
        return loss_fn(functional_call(model, values, (x,)), y)

    return torch.autograd.functional.hessian(loss, space.weights())


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


# --- against closed forms and dense algebra ---------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(N,), (8, 2), (1, 3, 6)])
def test_linear_regression_has_the_hessian_of_its_data(sizes: tuple[int, ...]) -> None:
    x, y = draw(N, 4), draw(N, 1, seed=1)
    model = nn.Linear(4, 1, bias=False).double()
    dense = operator(model, F.mse_loss, split(x, y, *sizes)).dense()
    torch.testing.assert_close(dense, 2 / N * x.T @ x, rtol=EXACT, atol=1e-14)


@pytest.mark.parametrize("sizes", [(N,), (8, 2)])
def test_binary_logistic_regression_weights_its_data_by_the_variance(sizes: tuple[int, ...]) -> None:
    x, y = draw(N, 4), (draw(N, 1, seed=1) > 0).double()
    model = nn.Linear(4, 1, bias=False).double()
    p = torch.sigmoid(model(x).detach())[:, 0]
    expected = x.T @ torch.diag(p * (1 - p)) @ x / N
    dense = operator(model, F.binary_cross_entropy_with_logits, split(x, y, *sizes)).dense()
    torch.testing.assert_close(dense, expected, rtol=EXACT, atol=1e-14)


@pytest.mark.parametrize("sizes", [(N,), (8, 2)])
def test_softmax_regression_is_a_sum_of_kronecker_products(sizes: tuple[int, ...]) -> None:
    x, y = draw(N, 4), torch.arange(N) % 3
    model = nn.Linear(4, 3, bias=False).double()
    p = torch.softmax(model(x).detach(), 1)
    each = [
        torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(a, a)) for q, a in zip(p, x, strict=True)
    ]
    dense = operator(model, F.cross_entropy, split(x, y, *sizes)).dense()
    torch.testing.assert_close(dense, torch.stack(each).mean(0), rtol=EXACT, atol=1e-14)


@pytest.mark.parametrize("hvp", ["retained", "rebuilt"])
@pytest.mark.parametrize("sizes", [(N,), (8, 2)])
def test_a_network_has_its_dense_autograd_hessian_however_it_is_chunked(
    sizes: tuple[int, ...], hvp: str
) -> None:
    x, y, model = draw(N, 3), draw(N, 2, seed=1), mlp()
    dense = operator(model, F.mse_loss, split(x, y, *sizes), hvp).dense()
    assert relative(dense, reference(model, F.mse_loss, x, y)) < EXACT
    assert relative(dense, dense.T) < EXACT


def test_the_rayleigh_quotient_has_its_closed_form_on_the_sphere() -> None:
    """L = ½ wᵀAw / wᵀw at ‖u‖ = 1: g = Au − μu, H = A − μI − 2(ugᵀ + guᵀ), μ = uᵀAu."""
    a = draw(6, 6) + draw(6, 6).T
    u = draw(6, seed=1) / draw(6, seed=1).norm()
    w = u.clone().requires_grad_()
    hessian = Hessian([lambda: 0.5 * (w @ a @ w) / (w @ w)], [w])
    mu = u @ a @ u
    g = a @ u - mu * u
    expected = a - mu * torch.eye(6, dtype=torch.float64) - 2 * (torch.outer(u, g) + torch.outer(g, u))
    torch.testing.assert_close(hessian.dense(), expected, rtol=EXACT, atol=1e-13)


def test_the_chunks_add_up_to_the_loss_on_all_examples() -> None:
    x, y, model = draw(N, 3), draw(N, 2, seed=1), mlp()
    total = sum(chunk() for chunk in chunk_losses(model, F.mse_loss, split(x, y, 7, 1, 2)))
    torch.testing.assert_close(total, F.mse_loss(model(x), y), rtol=1e-14, atol=0)


@pytest.mark.parametrize("hvp", ["retained", "rebuilt"])
@pytest.mark.parametrize("sizes", [(N,), (8, 2)])
def test_the_gradient_is_that_of_the_whole_loss_once_for_all(sizes: tuple[int, ...], hvp: str) -> None:
    x, y, model = draw(N, 3), draw(N, 2, seed=1), mlp()
    hessian = operator(model, F.mse_loss, split(x, y, *sizes), hvp)
    want = flatten(torch.autograd.grad(F.mse_loss(model(x), y), tuple(model.parameters())))
    first = hessian.gradient()
    torch.testing.assert_close(first, want, rtol=EXACT, atol=1e-14)
    hessian @ torch.ones_like(first)
    assert torch.equal(hessian.gradient(), want if len(sizes) == 1 else first) and not first.requires_grad


def test_shares_of_a_gradient_are_added_up_as_products_are() -> None:
    x, y, model = draw(N, 3), draw(N, 2, seed=1), mlp()
    chunks, params = chunk_losses(model, F.mse_loss, [(x, y)]), ParameterSpace.of(model).tensors
    alone, shared = Hessian(chunks, params), Hessian(chunks, params, all_reduce=lambda v: 3 * v)
    for _ in range(2):
        torch.testing.assert_close(shared.gradient(), 3 * alone.gradient())


def test_float32_products_are_float32_and_right_to_its_rounding() -> None:
    x, y, model = draw(N, 3), draw(N, 2, seed=1), mlp()
    exact = operator(model, F.mse_loss, [(x, y)]).dense()
    single = operator(model.float(), F.mse_loss, [(x.float(), y.float())]).dense(torch.float32)
    assert single.dtype == torch.float32
    assert relative(single.double(), exact) < 1e-5


# --- which tensors ----------------------------------------------------------------------------------------


def test_retained_graphs_give_bitwise_the_products_of_rebuilt_ones() -> None:
    """`hvp` depends on the free memory, and the memory must not decide a run."""
    x, y, model = draw(N, 3), draw(N, 2, seed=1), mlp()
    v = draw(32, seed=2)
    retained, rebuilt = (
        operator(model, F.mse_loss, split(x, y, 8, 2), hvp) for hvp in ("retained", "rebuilt")
    )
    assert torch.equal(retained @ v, rebuilt @ v)
    assert torch.equal(retained @ v, retained @ v)
    assert torch.equal(retained.gradient(), rebuilt.gradient())


def test_an_unused_parameter_has_zero_curvature() -> None:
    x, y, model = draw(N, 3), draw(N, 2, seed=1), mlp()
    used = operator(model, F.mse_loss, [(x, y)]).dense()
    model.register_parameter("unused", nn.Parameter(draw(4)))
    dense = operator(model, F.mse_loss, [(x, y)]).dense()  # `unused` comes first
    assert torch.equal(dense[4:, 4:], used)
    assert not dense[:4].any() and not dense[:, :4].any()


@pytest.mark.parametrize("hvp", ["retained", "rebuilt"])
def test_a_loss_that_is_linear_in_the_weights_has_zero_curvature(hvp: str) -> None:
    model = nn.Linear(3, 1).double()
    hessian = operator(model, lambda output, _: output.mean(), [(draw(N, 3), draw(N, 1))], hvp)
    assert torch.equal(hessian.dense(), torch.zeros(4, 4, dtype=torch.float64))


def test_frozen_parameters_are_no_part_of_the_space() -> None:
    x, y, model = draw(N, 3), draw(N, 2, seed=1), mlp()
    whole = operator(model, F.mse_loss, [(x, y)]).dense()
    model[0].requires_grad_(False)
    dense = operator(model, F.mse_loss, [(x, y)]).dense()
    assert dense.shape == (12, 12)
    torch.testing.assert_close(dense, whole[20:, 20:], rtol=EXACT, atol=1e-14)


def test_tied_weights_count_once_and_add_their_curvatures() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    model[2].weight = model[0].weight
    x, y, shape = draw(N, 3), draw(N, 3, seed=1), (3, 3)
    expected = torch.autograd.functional.hessian(
        lambda w: F.mse_loss(torch.tanh(x @ w.view(shape).T) @ w.view(shape).T, y),
        model[0].weight.detach().reshape(-1),
    )
    dense = operator(model, F.mse_loss, split(x, y, 8, 2)).dense()
    assert dense.shape == (9, 9)
    assert relative(dense, expected) < EXACT


def test_there_must_be_something_to_measure_on() -> None:
    with pytest.raises(ValueError, match="nothing to measure on"):
        chunk_losses(mlp(), F.mse_loss, [])


# --- a closure is a fixed function of the weights ---------------------------------------------------------


@pytest.mark.parametrize("hvp", ["retained", "rebuilt"])
def test_dropout_draws_the_same_mask_for_every_product(hvp: str) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 2)).double()
    chunks = split(draw(N, 3), draw(N, 2, seed=1), 5, 5)
    dense = operator(model, F.mse_loss, chunks, hvp).dense()
    torch.rand(17)
    assert torch.equal(operator(model, F.mse_loss, chunks, hvp).dense(), dense)
    assert relative(dense, dense.T) < EXACT
    assert relative(dense, operator(model.eval(), F.mse_loss, chunks).dense()) > 0.1  # it did drop something


def test_every_chunk_draws_its_own_mask() -> None:
    model, x = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5)), torch.ones(64)
    first, second = chunk_losses(model, lambda out, _: (out * torch.arange(64)).sum(), [(x, x), (x, x)])
    assert not torch.equal(first(), second())
    assert torch.equal(first(), first())


def test_closures_leave_buffers_and_random_numbers_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).double()
    before = {name: b.clone() for name, b in model.named_buffers()}
    state = torch.get_rng_state()
    operator(model, F.mse_loss, split(draw(N, 3), draw(N, 2, seed=1), 8, 2)) @ draw(34)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], b) for name, b in model.named_buffers())
    model(draw(N, 3))
    assert not torch.equal(
        before["1.running_mean"], model[1].running_mean
    )  # the model itself still learns them


def test_reading_the_chunks_draws_no_random_number() -> None:
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(draw(N, 3), draw(N, 2)), batch_size=8, shuffle=True
    )
    model = mlp()
    state = torch.get_rng_state()
    assert len(chunk_losses(model, F.mse_loss, loader)) == 2
    assert torch.equal(state, torch.get_rng_state())


def test_a_loss_on_the_cpu_leaves_the_generators_of_other_devices_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reseeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded.append)
    chunk_losses(mlp(), F.mse_loss, [(draw(N, 3), draw(N, 2))])[0]()
    assert not reseeded


# --- memory -----------------------------------------------------------------------------------------------


def graph_bytes(chunk: Callable[[], Tensor], params: tuple[Tensor, ...]) -> int:
    saved = SavedTensors(params)
    with saved.hooks():
        torch.autograd.grad(chunk(), params, create_graph=True)
    return saved.bytes


def test_the_size_of_a_graph_grows_with_the_chunk_and_leaves_the_weights_out() -> None:
    layers = nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 1)
    model = nn.Sequential(*layers).double()
    params = tuple(model.parameters())

    def size(n: int) -> int:
        return graph_bytes(chunk_losses(model, F.mse_loss, [(draw(n, 300), draw(n, 1))])[0], params)

    activation = 300 * 8  # bytes for one example
    assert 2 * 64 * activation < size(64) < 20 * 64 * activation
    assert size(256) / size(64) == pytest.approx(4, rel=0.15)
    assert size(1) < 300 * activation  # less than the weights alone


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("room", "kept", "hvp"),
    [(3.1, 3, "retained"), (2.9, 1, "partly retained"), (2.1, 1, "partly retained"), (1.9, 0, "rebuilt")],
)
def test_as_many_graphs_are_kept_as_fit_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, room: float, kept: int, hvp: str, processes: int
) -> None:
    """Beside one that is built again."""
    model = mlp()
    chunks = chunk_losses(model, F.mse_loss, split(draw(12, 3), draw(12, 2), 4, 4, 4))
    params = tuple(model.parameters())
    free = room * processes * graph_bytes(chunks[0], params) / module.MEMORY_SHARE
    monkeypatch.setattr(module, "free_bytes", lambda device: int(free))
    hessian = Hessian(chunks, params, processes=processes)
    assert hessian.hvp == hvp
    evaluations = list[int]()
    model[1].register_forward_hook(lambda *_: evaluations.append(1))
    product = hessian @ (v := draw(hessian.dim))
    assert len(evaluations) == 3 - kept
    retained = Hessian(chunks, params, "retained")
    assert torch.equal(product, retained @ v) and torch.equal(hessian.gradient(), retained.gradient())


@pytest.fixture
def partly_retained(monkeypatch: pytest.MonkeyPatch) -> Hessian:
    """The graph of the first of three chunks is kept."""
    chunks = chunk_losses(model := mlp(), F.mse_loss, split(draw(12, 3), draw(12, 2), 4, 4, 4))
    free = 2.1 * graph_bytes(chunks[0], params := tuple(model.parameters())) / module.MEMORY_SHARE
    monkeypatch.setattr(module, "free_bytes", lambda device: int(free))
    return Hessian(chunks, params)


@pytest.mark.parametrize("scarce", ["product", "gradient"])
def test_without_memory_the_kept_graphs_are_given_up(
    partly_retained: Hessian, scarce: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hessian, failures, build = partly_retained, [torch.OutOfMemoryError("out of memory")], Hessian._gradient

    def built(self: Hessian, *args: Any) -> Any:
        if failures:
            raise failures.pop()
        return build(self, *args)

    monkeypatch.setattr(Hessian, "_gradient", built)
    rebuilt = Hessian(hessian.chunks, hessian.params, "rebuilt")
    v = draw(hessian.dim)
    result = hessian @ v if scarce == "product" else hessian.gradient()
    assert hessian.hvp == "rebuilt" and hessian.ran_out_of_memory and not failures
    assert not hessian._graphs
    assert torch.equal(result, rebuilt @ v if scarce == "product" else rebuilt.gradient())


def test_a_loss_after_the_kept_graphs_that_is_not_finite_is_named(partly_retained: Hessian) -> None:
    hessian = partly_retained
    hessian.chunks = (*hessian.chunks[:2], lambda: sum(p.sum() for p in hessian.params) * torch.inf)
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="the loss of chunk 2"):
            hessian.gradient()


def test_a_gradient_over_weights_that_have_changed_is_refused(partly_retained: Hessian) -> None:
    with torch.no_grad():
        partly_retained.params[2].add_(1.0)
    with pytest.raises(RuntimeError, match="the weights have changed"):
        partly_retained.gradient()


def test_the_plan_evaluates_each_chunk_once_and_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = mlp(), draw(N, 3), draw(N, 2, seed=1)
    chunks = split(x, y, 4, 4, 2)
    planned, retained = (operator(model, F.mse_loss, chunks, hvp) for hvp in ("auto", "retained"))
    evaluations = list[int]()
    model[1].register_forward_hook(lambda *_: evaluations.append(1))
    operator(model, F.mse_loss, chunks)
    assert len(evaluations) == 3
    v = draw(planned.dim)
    assert torch.equal(planned @ v, retained @ v) and torch.equal(planned @ v, retained @ v)
    assert torch.equal(planned.gradient(), retained.gradient())
    monkeypatch.setattr(module, "free_bytes", lambda device: 0)
    evaluations.clear()
    assert operator(model, F.mse_loss, chunks).hvp == "rebuilt" and len(evaluations) == 1


@pytest.mark.parametrize("hvp", ["auto", "retained"])
def test_a_graph_of_weights_that_have_changed_gives_an_error_not_a_number(hvp: str) -> None:
    hessian = operator(mlp(), F.mse_loss, [(draw(N, 3), draw(N, 2))], hvp)
    with torch.no_grad():
        hessian.params[2].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        hessian @ draw(hessian.dim)


def test_retained_graphs_keep_no_copy_of_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """d numbers for each chunk outweigh the graph of a small chunk by far, and no product reads them."""
    made: list[weakref.ref[Tensor]] = []
    grad = torch.autograd.grad

    def recording(*args: Any, **options: Any) -> tuple[Tensor, ...]:
        gradient: tuple[Tensor, ...] = grad(*args, **options)
        made.extend(map(weakref.ref, gradient))
        return gradient

    chunks = chunk_losses(model := mlp(), F.mse_loss, split(draw(N, 3), draw(N, 2), 8, 2))
    monkeypatch.setattr(torch.autograd, "grad", recording)
    hessian = Hessian(chunks, tuple(model.parameters()), "retained")
    assert hessian.hvp == "retained" and len(made) == 8
    assert not any(ref() is not None for ref in made)


def test_free_bytes_of_this_machine_are_a_plausible_number() -> None:
    assert 2**20 < module.free_bytes(torch.device("cpu")) < 2**50


@pytest.mark.parametrize("hvp", ["auto", "retained", "rebuilt"])
def test_a_hessian_leaves_no_graph_behind_even_without_the_garbage_collector(hvp: str) -> None:
    model, activations = mlp(), list[weakref.ref[Tensor]]()
    model[1].register_forward_hook(lambda module, inputs, output: activations.append(weakref.ref(output)))
    gc.disable()
    try:
        hessian = operator(model, F.mse_loss, [(draw(N, 3), draw(N, 2))], hvp)
        hessian @ draw(32)
        del hessian
        assert len(activations) == 1
        assert not any(ref() is not None for ref in activations)
    finally:
        gc.enable()


# --- terms of the sum -------------------------------------------------------------------------------------


def test_a_weighted_part_of_the_chunks_is_the_sum_of_their_hessians() -> None:
    model, x, y = mlp(), draw(N, 3), draw(N, 2, seed=1)
    hessian = operator(model, F.mse_loss, split(x, y, 5, 3, 2))
    assert hessian.shares == pytest.approx((0.5, 0.3, 0.2))
    part = hessian.weighted_terms({2: 5.0, 0: 1.0})
    expected = reference(model, F.mse_loss, x[8:], y[8:]) + 0.5 * reference(model, F.mse_loss, x[:5], y[:5])
    assert torch.allclose(part.dense(), expected, atol=1e-12)


@pytest.mark.parametrize("hvp", ["retained", "rebuilt"])
def test_the_product_of_each_chunk_is_seen_and_they_add_up(hvp: str) -> None:
    hessian = operator(mlp(), F.mse_loss, split(draw(N, 3), draw(N, 2, seed=1), 5, 3, 2), hvp)
    seen: dict[int, Tensor] = {}
    v = draw(hessian.dim)
    product = hessian.apply_by_terms(v, lambda index, term: seen.update({index: term.clone()}))
    assert torch.equal(product, hessian @ v)
    assert torch.allclose(torch.stack([seen[i] for i in range(3)]).sum(0), product, atol=1e-14)
    assert torch.allclose(seen[1], hessian.weighted_terms({1: 1.0}) @ v, atol=1e-14)


def test_chunks_and_their_parts_are_dealt_out_over_the_processes() -> None:
    model, x, y = mlp(), draw(N, 3), draw(N, 2, seed=1)
    chunks, params = chunk_losses(model, F.mse_loss, split(x, y, 2, 2, 2, 2, 2)), tuple(model.parameters())
    ranks = [Hessian(chunks, params, shard=lambda items, r=rank: items[r::2]) for rank in range(2)]
    whole, v = Hessian(chunks, params), draw(32)
    assert [len(hessian.chunks) for hessian in ranks] == [3, 2]
    assert torch.allclose(sum(hessian @ v for hessian in ranks), whole @ v, atol=1e-14)
    parts = [hessian.weighted_terms({4: 3.0, 2: 2.0}) for hessian in ranks]
    assert [len(part.chunks) for part in parts] == [1, 1]
    assert torch.allclose(sum(p @ v for p in parts), whole.weighted_terms({2: 2.0, 4: 3.0}) @ v, atol=1e-14)
    seen: list[int] = []
    for hessian in ranks:
        hessian.apply_by_terms(v, lambda index, _: seen.append(index))
    assert sorted(seen) == [0, 1, 2, 3, 4]
    alone = [hessian.weighted_terms({0: 1.0}) for hessian in ranks]  # one of them has nothing to do
    assert torch.allclose(sum(p @ v for p in alone), whole.weighted_terms({0: 1.0}) @ v, atol=1e-14)


# --- BatchNorm in training mode ---------------------------------------------------------------------------


class PrimitiveBatchNorm(nn.Module):
    """BatchNorm in training mode out of operations whose derivatives nobody doubts."""

    def __init__(self, like: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps, self.weight, self.bias = like.eps, like.weight, like.bias

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = (x - mean).square().mean((0, 2, 3), keepdim=True)
        normal = (x - mean) / (variance + self.eps).sqrt()
        if self.weight is None:
            return normal
        return normal * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


def convolutional(affine: str, running: bool = True) -> nn.Module:
    """conv, BN, tanh, conv, BN, tanh, mean, linear; affine parameters `trained`, `frozen` or `absent`."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((2, 3), (3, 4)):
        norm = nn.BatchNorm2d(outputs, affine=affine != "absent", track_running_stats=running)
        if affine != "absent":
            norm.weight.data, norm.bias.data = 1 + 0.3 * torch.randn(outputs), 0.3 * torch.randn(outputs)
            norm.requires_grad_(affine == "trained")
        layers += [nn.Conv2d(inputs, outputs, 3), norm, nn.Tanh()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double()


def primitive(model: nn.Module) -> nn.Module:
    """The same network around the same tensors, with a BatchNorm made of primitives."""
    return nn.Sequential(*(PrimitiveBatchNorm(m) if isinstance(m, nn.BatchNorm2d) else m for m in model))


IMAGES = [(draw(6, 2, 7, 7), torch.arange(6) % 3), (draw(3, 2, 7, 7, seed=1), torch.arange(3))]


@pytest.mark.parametrize("affine", ["trained", "frozen", "absent"])
def test_products_through_batchnorm_equal_those_through_primitives(affine: str) -> None:
    model = convolutional(affine)
    hessian = operator(model, F.cross_entropy, IMAGES)
    twin = operator(primitive(model), F.cross_entropy, IMAGES)
    for seed in range(3):
        v = draw(hessian.dim, seed=seed)
        assert relative(hessian @ v, twin @ v) < EXACT


@pytest.mark.parametrize("affine", ["trained", "frozen", "absent"])
def test_the_hessian_through_batchnorm_is_symmetric(affine: str) -> None:
    hessian = operator(convolutional(affine), F.cross_entropy, IMAGES)
    u, v = draw(hessian.dim, seed=1), draw(hessian.dim, seed=2)
    assert float(u @ (hessian @ v)) == pytest.approx(float(v @ (hessian @ u)), rel=EXACT)


def test_products_through_batchnorm_are_differences_of_gradients() -> None:
    model = convolutional("trained")
    hessian, space = operator(model, F.cross_entropy, IMAGES), ParameterSpace.of(model)
    w, v, h = space.weights(), draw(space.dim, seed=1), 1e-5

    def gradient(at: Tensor) -> Tensor:
        space.assign(at)
        return flatten(torch.autograd.grad(sum(c() for c in hessian.chunks), space.tensors))

    product = hessian @ v  # before the weights move
    assert relative(product, (gradient(w + h * v) - gradient(w - h * v)) / (2 * h)) < 1e-6


torch_warns_of_itself = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")


def forward_over_reverse(model: nn.Module, v: Tensor) -> Tensor:
    """jvp(jacrev), the composition that other programs use."""
    space, (x, y) = ParameterSpace.of(model), IMAGES[0]

    def loss(*tensors: Tensor) -> Tensor:
        values = dict(zip(space.names, tensors, strict=True))
        return F.cross_entropy(functional_call(model, values, (x,)), y)

    gradient = torch.func.jacrev(loss, argnums=tuple(range(len(space.tensors))))
    at = tuple(t.detach() for t in space.tensors)
    return flatten(torch.func.jvp(gradient, at, tuple(unflatten(v, space.tensors)))[1])


@torch_warns_of_itself
@pytest.mark.parametrize("affine", ["frozen", "absent"])
def test_forward_over_reverse_agrees_where_no_affine_parameter_is_trained(affine: str) -> None:
    model = convolutional(affine, running=False)
    hessian = operator(model, F.cross_entropy, IMAGES[:1])
    v = draw(hessian.dim)
    assert relative(forward_over_reverse(model, v), hessian @ v) < EXACT


@torch_warns_of_itself
def test_forward_over_reverse_is_wrong_with_trained_affine_parameters() -> None:
    model = convolutional("trained", running=False)
    hessian = operator(model, F.cross_entropy, IMAGES[:1])
    v = draw(hessian.dim)
    error = relative(forward_over_reverse(model, v), hessian @ v)
    if error < EXACT:
        pytest.skip(
            f"torch {torch.__version__} has mended jvp(jacrev) through BatchNorm; double backward stays right"
        )
    assert error > 1e-4


# --- memory that does not suffice, and models of every shape ----------------------------------------------


class Scarce:
    """Raises once, at the given call, as torch does when a device is full."""

    def __init__(self, at: int, error: RuntimeError) -> None:
        self.at, self.error, self.calls = at, error, 0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return F.mse_loss(output, target)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_falls_back_to_rebuilt_graphs_once_and_says_so(error: RuntimeError) -> None:
    model, x, y = mlp(), draw(N, 3), draw(N, 2, seed=1)
    chunks, scarce = split(x, y, 8, 2), Scarce(2, error)
    thrifty = operator(model, scarce, chunks, "retained")
    v = draw(thrifty.dim)
    assert torch.equal(thrifty @ v, operator(model, F.mse_loss, chunks, "rebuilt") @ v)
    assert thrifty.hvp == "rebuilt"
    scarce.at = scarce.calls + 1
    with pytest.raises(RuntimeError, match=r"memory"):
        thrifty @ v


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        operator(
            mlp(), Scarce(1, RuntimeError("shape mismatch")), split(draw(N, 3), draw(N, 2), N), "retained"
        )


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.linear(a * b)


@pytest.mark.parametrize("form", ["tuple", "dictionary"])
def test_inputs_and_targets_may_be_structures(form: str) -> None:
    model, a, b, y = TwoInputs().double(), draw(N, 3), draw(N, 3, seed=1), draw(N, 2, seed=2)

    def pack(part: slice) -> Any:
        if form == "tuple":
            return (a[part], b[part]), (y[part], None)
        return {"b": b[part], "a": a[part]}, {"y": y[part]}

    def loss_fn(output: Tensor, target: Any) -> Tensor:
        return F.mse_loss(output, target[0] if form == "tuple" else target["y"])

    got = operator(model, loss_fn, [pack(slice(0, 7)), pack(slice(7, N))]).dense()
    assert torch.allclose(got, operator(model.linear, F.mse_loss, split(a * b, y, N)).dense(), atol=EXACT)


@pytest.mark.parametrize("hvp", ["retained", "rebuilt"])
def test_activation_checkpointing_changes_no_product(hvp: str) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = checkpoint(self.inner, x, use_reentrant=False)
            return out

    inner = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)
    ).double()
    chunks = split(draw(N, 1, 4, 4), draw(N, 2, seed=1), 6, 4)
    plain, saving = (
        operator(inner, F.mse_loss, chunks, hvp),
        operator(Checkpointed(inner), F.mse_loss, chunks, hvp),
    )
    v = draw(plain.dim)
    assert torch.allclose(saving @ v, plain @ v, rtol=EXACT, atol=EXACT)
