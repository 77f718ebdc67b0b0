"""`measure` on models and losses that mislead a Hessian product: right, or refused, and no trace left."""

import copy
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint
from torchvision.ops import roi_align

from optim_family import measure
from optim_family.errors import UnreliableReading
from optim_family.sharpness.measure import Reading
from tests.helpers.operators_for_tests import draw

DOUBLE = torch.float64


def raw(model: nn.Module, loss: Callable[..., Any], chunks: Any, **options: Any) -> Reading:
    return measure(model, loss, chunks, views=("raw",), rtol=1e-6, **options)["raw"]


def top_by_differences(loss: Callable[[], Tensor], params: list[Tensor], h: float = 1e-5) -> float:
    """λ₁ from central differences of gradients, one weight at a time."""
    rows = []
    for p in params:
        for i in range(p.numel()):
            flat, ends = p.data.view(-1), []
            kept = float(flat[i])
            for step in (h, -h):
                flat[i] = kept + step
                gradients = torch.autograd.grad(loss(), params, materialize_grads=True)
                ends.append(torch.cat([g.reshape(-1) for g in gradients]).detach())
            flat[i] = kept
            rows.append((ends[0] - ends[1]) / (2 * h))
    matrix = torch.stack(rows)
    return float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])


def trained(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


# --- right ------------------------------------------------------------------------------------------------


class Critic(nn.Module):
    """Outputs and their derivative in the input, as for a gradient penalty."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        out = self.net(x)
        return out, torch.autograd.grad(out.sum(), x, create_graph=True)[0]


def penalty(outputs: tuple[Tensor, Tensor], y: Any) -> Tensor:
    return outputs[0].mean() + 10 * ((outputs[1].flatten(1).norm(dim=1) - 1) ** 2).mean()


CRITICS = {
    "convolution": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.Softplus(), nn.Conv2d(2, 1, 3, stride=2), nn.Flatten()
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Softplus(), nn.Flatten(), nn.Linear(18, 1)
    ),
    "batch norm without weights": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.Tanh(), nn.Flatten(), nn.Linear(18, 1)
    ),
    "layer norm": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.LayerNorm([3, 3]), nn.Softplus(), nn.Flatten(), nn.Linear(18, 1)
    ),
    "layer norm without weights": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(25, 4), nn.LayerNorm(4, elementwise_affine=False), nn.Tanh(), nn.Linear(4, 1)
    ),
    "instance norm": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, affine=True), nn.Softplus(), nn.Flatten(), nn.Linear(18, 1)
    ),
    "instance norm with running statistics": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.InstanceNorm2d(2, track_running_stats=True),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(18, 1),
    ),
}


@pytest.mark.parametrize("norm", [nn.LayerNorm(2), nn.BatchNorm1d(2, track_running_stats=False)])
def test_a_derivative_by_torch_func_through_a_normalization(norm: nn.Module) -> None:
    model = Around(
        lambda model, x: torch.func.grad(lambda z: model.norm(model.net(z)).sin().sum())(x)[:, :2],
        norm=norm.double(),
    )
    want = top_by_differences(lambda: F.mse_loss(model(X), Y), trained(model))
    assert raw(model, F.mse_loss, [(X, Y)]).value == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("kind", CRITICS)
def test_a_derivative_inside_the_loss(kind: str) -> None:
    """Against the same layers from primitives: torch has no third derivative of batch norm."""
    torch.manual_seed(0)
    model, x = Critic(CRITICS[kind]()).double(), draw(4, 1, 5, 5)
    reading = raw(model, penalty, [(x, torch.zeros(4))])

    def loss() -> Tensor:
        with torch.enable_grad():
            return penalty(model(x), None)

    assert reading.check == "passed"
    assert reading.value == pytest.approx(top_by_differences(loss, trained(model)), rel=1e-5)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4).requires_grad_(False)
        self.inner, self.norm, self.head = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)
        self.reentrant = reentrant

    def block(self, h: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.inner(h)))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).requires_grad_()
        if self.reentrant is None:
            return self.head(self.block(h))
        return self.head(checkpoint(self.block, h, use_reentrant=self.reentrant))


@pytest.mark.parametrize("hvp", ["retained", "rebuilt"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_hide_nothing_and_move_no_statistics(reentrant: bool, hvp: Any) -> None:
    torch.manual_seed(0)
    plain = Checkpointed(None).double()
    model = copy.deepcopy(plain)
    model.reentrant = reentrant
    before = copy.deepcopy(model.state_dict())
    chunks = [(draw(6, 3), draw(6, 1, seed=1))]
    got = raw(model, F.mse_loss, chunks, hvp=hvp)
    assert got.value == pytest.approx(raw(plain, F.mse_loss, chunks).value, rel=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("old", [True, False], ids=["hook", "parametrization"])
def test_weight_norm_has_the_second_derivative_of_its_formula(old: bool) -> None:
    torch.manual_seed(1)
    norm = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = nn.Sequential(norm(nn.Linear(3, 4)), nn.Tanh(), norm(nn.Linear(4, 2))).double()
    x, y = draw(8, 3), draw(8, 2, seed=1)
    reading = raw(model, F.mse_loss, [(x, y)])
    want = top_by_differences(lambda: F.mse_loss(model(x), y), trained(model))
    assert reading.value == pytest.approx(want, rel=1e-6)


def test_hooks_on_gradients_are_left_out_and_stay() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    chunks = [(draw(8, 3), draw(8, 2, seed=1))]
    want = raw(model, F.mse_loss, chunks).value
    calls = []
    for p in model.parameters():
        p.register_hook(lambda g: calls.append(1) or g.clamp(-0.05, 0.05))
    model[2].register_full_backward_hook(lambda module, into, out: calls.append(1))
    assert raw(model, F.mse_loss, chunks).value == want
    assert not calls
    F.mse_loss(model(chunks[0][0]), chunks[0][1]).backward()
    assert len(calls) == 5


def test_complex_convolution() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.real, self.imaginary = (nn.Parameter(draw(2, 1, 3, 3, seed=s)) for s in (1, 2))

        def forward(self, x: Tensor) -> Tensor:
            out = F.conv2d(x, torch.complex(self.real, self.imaginary))
            return torch.view_as_real(out * out.abs()).flatten(1).mean(1, keepdim=True)

    model, x, y = Net(), torch.complex(draw(4, 1, 5, 5), draw(4, 1, 5, 5, seed=3)), draw(4, 1)
    want = top_by_differences(lambda: F.mse_loss(model(x), y), trained(model))
    assert raw(model, F.mse_loss, [(x, y)]).value == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    "net",
    [
        lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Hardsigmoid()),
        lambda: nn.GRU(4, 4, batch_first=True),
        lambda: nn.DataParallel(nn.Linear(4, 4)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU()),
    ],
    ids=["attention", "hardsigmoid", "gru", "data parallel", "layer norm"],
)
def test_layers_and_wrappers(net: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x, y = net().double(), draw(2, 3, 4), draw(2, 3, 4, seed=1)

    def loss(out: Any, target: Tensor) -> Tensor:
        return F.mse_loss(out[0] if isinstance(out, tuple) else out, target)

    def differentiable() -> Tensor:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return loss(model(x), y)

    want = top_by_differences(differentiable, trained(model))
    assert raw(model, loss, [(x, y)]).value == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("options", [{"sparse": True}, {"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_embeddings_are_dense_and_stay_where_they_are(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(4, 3, **options), nn.Flatten(), nn.Linear(6, 1)).double()
    plain = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 1)).double()
    x, y = torch.randint(0, 4, (8, 2)), draw(8, 1)
    before = model[0].weight.detach().clone()
    got = raw(model, F.mse_loss, [(x, y)]).value
    assert torch.equal(model[0].weight, before)
    model(x)  # now the rows are where max_norm has them
    plain.load_state_dict(model.state_dict())
    assert got == pytest.approx(raw(plain, F.mse_loss, [(x, y)]).value, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e20])
def test_losses_at_the_ends_of_float32(scale: float) -> None:
    torch.manual_seed(0)
    x, y, model = torch.randn(8, 3), torch.randn(8, 1), nn.Linear(3, 1, bias=False)
    want = float(torch.linalg.eigvalsh(2 * x.double().T @ x.double() / 8)[-1])
    reading = raw(model, lambda out, target: F.mse_loss(out, target) * scale, [(x, y)])
    assert reading.value / scale == pytest.approx(want, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*the loss is not scale-invariant")
@pytest.mark.parametrize("size", [1e20, 1e-30])
def test_weights_at_the_ends_of_float32(size: float) -> None:
    torch.manual_seed(0)
    x, y, model = torch.randn(8, 3), torch.randn(8, 1), nn.Linear(3, 1, bias=False)
    model.weight.data.mul_(size)
    unit = max(size, 1.0)
    top = float(torch.linalg.eigvalsh(2 * x.double().T @ x.double() / 8)[-1]) / unit**2
    want = top * float(model.weight.detach().double().square().sum())
    reading = measure(
        model, lambda out, target: (out / unit - target).square().mean(), [(x, y)], views=["spherical"]
    )
    assert reading["spherical"].value == pytest.approx(want, rel=1e-4)


def test_sums_over_thirty_million_terms_in_float32() -> None:
    from optim_family.space import inner

    q = torch.randn(30_000_000, generator=torch.Generator().manual_seed(0))
    want = float(q.double() @ q.double())
    assert float(inner(q[None], q)[0]) == pytest.approx(want, rel=1e-6)


def test_exact_multiples_are_listed() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3, bias=False).double(), draw(9, 4), draw(9, 3, seed=1)
    top = float(torch.linalg.eigvalsh(2 * x.T @ x / 27)[-1])
    assert raw(model, F.mse_loss, [(x, y)], k=3).top == pytest.approx([top] * 3, rel=1e-5)


@pytest.mark.parametrize("hvp", ["retained", "rebuilt"])
def test_low_precision_inside_is_in_the_error(hvp: Any) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 1))

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = copy.deepcopy(layers).bfloat16()

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x).float()

    x, y = draw(8, 4).bfloat16(), draw(8, 1).bfloat16()
    want = raw(layers.double(), F.mse_loss, [(x.double(), y.double())])
    got = measure(Mixed(), F.mse_loss, [(x, y.float())], views=("raw",), hvp=hvp)["raw"]
    assert abs(got.value - want.value) < got.error
    assert got.error > 1e-3 * got.value and not got.converged


def test_surroundings_do_not_matter() -> None:
    torch.manual_seed(0)
    model, x, y = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
        torch.randn(8, 3),
        torch.randn(8, 2),
    )
    want = raw(model, F.mse_loss, [(x, y)]).value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert raw(model, F.mse_loss, [(x, y)]).value == want
    with torch.inference_mode():
        assert raw(model, F.mse_loss, [(x.clone(), y.clone())]).value == want
    with torch.no_grad():
        assert raw(model, F.mse_loss, [(x, y)]).value == want
    with torch.device("meta"):
        assert raw(model, F.mse_loss, [(x, y)]).value == want
    torch.manual_seed(-1)
    assert raw(model, F.mse_loss, [(x, y)]).value == pytest.approx(want, rel=1e-6)


def test_a_graph_that_the_caller_holds_survives() -> None:
    torch.manual_seed(0)
    model, x, y = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
        torch.randn(8, 3),
        torch.randn(8, 2),
    )
    loss = F.mse_loss(model(x), y)
    measure(model, F.mse_loss, [(x, y)])
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


# --- randomness and threads ---------------------------------------------------------------------------------


class Noisy(nn.Module):
    def __init__(self, noise: Callable[[], Any]) -> None:
        super().__init__()
        self.linear, self.noise = nn.Linear(3, 2), noise

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x * (0.5 + self.noise()))


@pytest.mark.parametrize("source", [lambda: np.random.rand(), random.random, lambda: torch.rand(())])
def test_global_random_streams_are_held_and_put_back(source: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model, x, y = Noisy(source), torch.randn(6, 3), torch.randn(6, 2)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    values = {raw(model, F.mse_loss, [(x, y)], hvp="rebuilt").value for _ in range(3)}
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert len(values) == 1
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])


def test_a_generator_of_ones_own_or_a_state_is_refused() -> None:
    torch.manual_seed(0)
    x, y, generator = torch.randn(6, 3), torch.randn(6, 2), torch.Generator().manual_seed(0)
    calls: list[int] = []
    for noise in (lambda: torch.rand((), generator=generator), lambda: calls.append(1) or len(calls)):
        with pytest.raises(UnreliableReading, match=r"not a function of the weights.*state that the model"):
            measure(Noisy(noise), F.mse_loss, [(x, y)])


def test_overlapping_measurements_leave_torch_as_it_was() -> None:
    functions, inside, go = (F.conv2d, F.batch_norm), threading.Event(), threading.Event()
    x, y = torch.randn(4, 1, 4, 4), torch.randn(4, 1)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1))

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            inside.set()
            go.wait(20)
            return self.net(x)

    class Second(First):
        def forward(self, x: Tensor) -> Tensor:
            go.set()
            first.join(20)
            return self.net(x)

    first = threading.Thread(target=lambda: measure(First(), F.mse_loss, [(x, y)], views=("raw",)))
    first.start()
    inside.wait(20)
    measure(Second(), F.mse_loss, [(x, y)], views=("raw",))
    first.join()
    assert (F.conv2d, F.batch_norm) == functions


@pytest.fixture
def frequent_thread_switches() -> Iterator[None]:
    """Threads take turns every 10 µs, so that a race shows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("frequent_thread_switches")
def test_four_threads_read_what_one_reads() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(16, 3), torch.randn(16, 2)
    models = [nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 2)) for _ in range(4)]
    want = [raw(model, F.mse_loss, [(x, y)]).value for model in models]
    state, got = torch.get_rng_state(), [0.0] * 4

    def work(i: int) -> None:
        for _ in range(3):
            got[i] = raw(models[i], F.mse_loss, [(x, y)]).value

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == want
    assert torch.equal(torch.get_rng_state(), state)


class WithTeacher(nn.Module):
    """Keeps a network out of its parameters in a list, and what it saw in another."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher, self.seen = nn.Linear(3, 2), [teacher], list[float]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(float(x.sum()))
        return self.student(x) - self.teacher[0](x).detach()


def test_a_network_in_a_list_or_in_the_loss_stays_as_it_is() -> None:
    torch.manual_seed(0)
    teacher, other, critic = (nn.BatchNorm1d(n) for n in (3, 2, 2))
    model = WithTeacher(nn.Sequential(teacher, nn.Linear(3, 2)))
    before = [m.running_mean.clone() for m in (teacher, other, critic) if m.running_mean is not None]

    def loss(out: Tensor, y: Tensor, third: nn.Module = critic) -> Tensor:
        return F.mse_loss(other(out), y) + third(out).square().sum()

    measure(model, loss, [(torch.randn(8, 3), torch.randn(8, 2))], views=("raw",))
    after = [m.running_mean for m in (teacher, other, critic)]
    assert all(a is not None and torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert model.seen == []


def test_curvature_on_a_scale_far_below_the_first_step_passes_the_check() -> None:
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1e-9, 1.0]]))

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return (out**2 + 1e-14).sqrt().mean()  # 1e7 within 1e-7 of zero

    chunks = [(torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.zeros(1))]
    reading = measure(model, loss, chunks, views=("raw",), check="full")["raw"]
    assert reading.value == pytest.approx(1e7, rel=1e-3) and reading.check == "passed"


def test_a_loss_next_to_the_rounding_of_its_dtype_is_not_checked_rather_than_blamed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3, bias=False))
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    optimizer = torch.optim.LBFGS(model.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss.detach()

    for _ in range(3):
        loss = float(optimizer.step(closure))
    assert loss < 1e-6
    reading = measure(model, F.cross_entropy, [(x, y)], views=("raw",), check="full")["raw"]
    assert reading.check.startswith(f"not checked: a loss of {loss:.2g} is close to the rounding")


# --- what a forward pass does besides ---------------------------------------------------------------------


class Around(nn.Module):
    """A small network, and something of its own before the outputs."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **attributes: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        self.own = forward
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


def without_hooks_on_saved_tensors(model: Any, x: Tensor) -> Tensor:
    with torch.autograd.graph.disable_saved_tensors_hooks("none here"):
        return model.net(x)


def without_cudnn(model: Any, x: Tensor) -> Tensor:
    with torch.backends.cudnn.flags(enabled=False):
        return model.net(x)


def per_example(model: Any, x: Tensor) -> Tensor:
    """The derivative of each example in its input."""
    one = torch.func.grad(lambda example: model.net(example[None]).square().sum())
    return torch.func.vmap(one)(x)[:, :2]


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
@pytest.mark.parametrize(
    "forward",
    [
        per_example,
        lambda model, x: torch.func.jvp(model.net, (x,), (torch.ones_like(x),))[1],
        lambda model, x: torch.sparse.mm(torch.eye(6, dtype=DOUBLE).to_sparse(), model.net(x)),
        without_hooks_on_saved_tensors,
        without_cudnn,
    ],
    ids=["func.grad", "func.jvp", "sparse", "hooks disabled", "cuDNN flags"],
)
def test_contexts_and_transforms_in_the_forward_pass(forward: Any) -> None:
    model, x, y = Around(forward), draw(6, 3), draw(6, 2, seed=1)
    want = top_by_differences(lambda: F.mse_loss(model(x), y), trained(model))
    assert raw(model, F.mse_loss, [(x, y)]).value == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_the_older_switches_can_be_read_inside_and_are_put_back(precision: str) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    seen = []

    def forward(model: Any, x: Tensor) -> Tensor:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return model.net(x)

    try:
        torch.set_float32_matmul_precision(precision)
        measure(Around(forward), F.mse_loss, [(X, Y)])
        assert set(seen) == {("highest", False)}
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (
            precision,
            before[1],
        )
    finally:
        torch.set_float32_matmul_precision(before[0])


def test_a_backward_pass_inside_the_loss_writes_no_gradient() -> None:
    def forward(model: Any, x: Tensor) -> Tensor:
        model.net(x).sum().backward()
        model.zero_grad()
        model.net(x).square().sum().backward()
        return model.net(x)

    model, calls = Around(forward), list[int]()
    F.mse_loss(model.net(X), Y).backward()
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: calls.append(1))
    before = [(p.grad, p.grad.clone()) for p in model.parameters()]
    want = raw(model.net, F.mse_loss, [(X, Y)]).value
    assert raw(model, F.mse_loss, [(X, Y)]).value == pytest.approx(want, rel=1e-9)
    assert not calls
    for p, (gradient, copy_of_it) in zip(model.parameters(), before, strict=True):
        assert p.grad is gradient and torch.equal(gradient, copy_of_it)


def constrain(model: Any, x: Tensor) -> Tensor:
    """As a layer with a maximum norm does."""
    model.net[0].weight.data = torch.renorm(model.net[0].weight.data, 2, 0, 0.3)
    return model.net(x)


def constrain_in_place(model: Any, x: Tensor) -> Tensor:
    model.net[0].weight.data.mul_(0.5)
    return model.net(x)


def follow(model: Any, x: Tensor) -> Tensor:
    """As a momentum encoder does."""
    model.key.weight.data.lerp_(model.net[0].weight.data, 0.1)
    return model.net(x) - model.key(x)[:, :2]


@pytest.mark.parametrize("check", ["once", "off"])
@pytest.mark.parametrize("forward", [constrain, constrain_in_place, follow])
def test_a_forward_pass_that_changes_weights_is_refused_and_undone(forward: Any, check: Any) -> None:
    model = Around(forward, key=nn.Linear(3, 4).double().requires_grad_(False))
    before = [(p.data_ptr(), p.detach().clone()) for p in model.parameters()]
    changed = "key.weight" if forward is follow else "net.0.weight"
    with pytest.raises(
        ValueError, match=rf"Around changes weights \({changed}\).*after the optimizer's step"
    ):
        measure(model, F.mse_loss, [(X, Y)], check=check)
    for p, (pointer, copy_of_it) in zip(model.parameters(), before, strict=True):
        assert p.data_ptr() == pointer and torch.equal(p, copy_of_it)


def test_a_forward_pass_that_freezes_weights_is_refused_and_undone() -> None:
    model = Around(
        lambda model, x: model.net.requires_grad_(False) and model.net[2](model.net[:2](x) * model.s)
    )
    model.s = nn.Parameter(torch.ones((), dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"sets requires_grad of a measured weight to False.*instead\."):
        measure(model, F.mse_loss, [(X, Y)])
    assert all(p.requires_grad for p in model.parameters())


def test_hooks_of_the_first_forward_pass_do_not_pile_up() -> None:
    def forward(model: Any, x: Tensor) -> Tensor:
        if not getattr(model, "hooked", False):
            model.net[0].register_forward_hook(lambda module, into, out: out + 1)
            model.hooked = True
        return model.net(x)

    model = Around(forward)
    for _ in range(2):
        measure(model, F.mse_loss, [(X, Y)])
    assert not model.net[0]._forward_hooks and not hasattr(model, "hooked")


def test_hooks_on_the_gradients_of_every_module_are_left_out_and_stay() -> None:
    model, calls = Around(lambda model, x: model.net(x)), list[int]()
    want = raw(model, F.mse_loss, [(X, Y)]).value

    def double(module: nn.Module, into: Any, out: Any) -> Any:
        calls.append(1)
        return tuple(None if g is None else 2 * g for g in into)

    handle = nn.modules.module.register_module_full_backward_hook(double)
    try:
        assert raw(model, F.mse_loss, [(X, Y)]).value == want
        assert not calls
        F.mse_loss(model(X.clone().requires_grad_()), Y).backward()
        assert calls
    finally:
        handle.remove()


def test_an_ensemble_over_a_skeleton_on_the_meta_device() -> None:
    """As torch's tutorial on ensembles does it."""

    def forward(model: Any, x: Tensor) -> Tensor:
        stacked = {name: torch.stack([p, 2 * p]) for name, p in model.net.named_parameters()}
        return torch.vmap(lambda p: torch.func.functional_call(model.skeleton[0], p, (x,)))(stacked).mean(0)

    model = Around(forward)
    model.skeleton = [copy.deepcopy(model.net).to("meta")]
    want = top_by_differences(lambda: F.mse_loss(model(X), Y), trained(model))
    assert raw(model, F.mse_loss, [(X, Y)]).value == pytest.approx(want, rel=1e-5)


def test_sparse_gradients_that_a_step_left() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(4, 3, sparse=True), nn.Flatten(), nn.Linear(6, 1)).double()
    x, y = torch.randint(0, 4, (8, 2)), draw(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    want = measure(model, F.mse_loss, [(x, y)], optimizer)["raw"]
    F.mse_loss(model(x), y).backward()
    got = measure(model, F.mse_loss, [(x, y)], optimizer)["raw"]
    assert (got.value, got.threshold) == (want.value, want.threshold)
    assert model[0].weight.grad.is_sparse


def test_frozen_complex_weights() -> None:
    def forward(model: Any, x: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(model.net(x)) * model.rotation)

    turn = torch.polar(torch.ones(6, dtype=DOUBLE), draw(6))
    model = Around(forward, rotation=nn.Parameter(turn, requires_grad=False))
    want = top_by_differences(lambda: F.mse_loss(model(X), Y), trained(model))
    assert raw(model, F.mse_loss, [(X, Y)]).value == pytest.approx(want, rel=1e-5)


# --- refused ----------------------------------------------------------------------------------------------


@torch.library.custom_op("optim_family_tests::cube", mutates_args=())
def cube(x: Tensor) -> Tensor:
    return x**3


@torch.library.custom_op("optim_family_tests::slope_of_cube", mutates_args=())
def slope_of_cube(g: Tensor, x: Tensor) -> Tensor:
    return 3 * g * x**2


cube.register_autograd(
    lambda ctx, g: slope_of_cube(g, ctx.x),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "x", inputs[0]),
)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * 3 * ctx.saved_tensors[0] ** 2


class Straight(torch.autograd.Function):
    """tanh, with the derivative of something else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class Through(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(3, 2).double(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


LINEAR, X, Y = nn.Linear(3, 2).double(), draw(6, 3), draw(6, 2, seed=1)
NAN = nn.Linear(3, 2).double()
NAN.weight.data[0, 0] = float("nan")
COMPLEX = nn.Linear(3, 2, dtype=torch.complex64)
COLLECTING, COLLECTED = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double(), list[Tensor]()
COLLECTING[0].register_forward_hook(lambda module, into, out: COLLECTED.append(out))
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    SCRIPTED = torch.jit.script(nn.Linear(3, 2))
REFUSED = {
    "a tensor for a pair": (LINEAR, F.mse_loss, (X, Y), "list of pairs.*write"),
    "two examples": (LINEAR, F.mse_loss, (X[:2], Y[:2]), "list of pairs.*write"),
    "a dictionary": (LINEAR, F.mse_loss, [{"image": X, "label": Y}], "a dictionary of image, label"),
    "three parts": (LINEAR, F.mse_loss, [(X, Y, X)], "has 3 parts"),
    "a tuple of losses": (LINEAR, lambda o, t: (F.mse_loss(o, t), o), [(X, Y)], "got a tuple"),
    "a float": (LINEAR, lambda o, t: 1.0, [(X, Y)], "got a float"),
    "detached": (LINEAR, lambda o, t: F.mse_loss(o, t).detach(), [(X, Y)], "is it detached"),
    "not finite": (LINEAR, lambda o, t: (o.sum() * 0).log(), [(X, Y)], "loss of chunk 0 is -inf"),
    "a weight that is NaN": (NAN, F.mse_loss, [(X, Y)], "weights of this Linear are not finite"),
    "complex weights": (COMPLEX, F.mse_loss, [(X, Y)], "'weight' is complex"),
    "TorchScript": (SCRIPTED, F.mse_loss, [(X, Y)], "measure it before scripting"),
    "once differentiable": (Through(Once.apply), F.mse_loss, [(X, Y)], "a backward of its own"),
    "a backward of its own": (Through(Straight.apply), F.mse_loss, [(X, Y)], "a backward of its own"),
    "detached inside": (Through(lambda h: h * h.detach()), F.mse_loss, [(X, Y)], "held constant"),
    "asymmetric": (
        Through(lambda h: h.register_hook(lambda g: g.flip(1) * g.abs()) and h),
        F.mse_loss,
        [(X, Y)],
        "Likely causes",
    ),
    "a sum over examples": (LINEAR, nn.MSELoss(reduction="sum"), [(X[:4], Y[:4]), (X[4:], Y[4:])], "sums"),
    "a sum written out": (
        LINEAR,
        lambda o, t: (o - t).square().sum(),
        [(X[:4], Y[:4]), (X[4:], Y[4:])],
        "sums over the examples",
    ),
    "a norm at 0": (
        LINEAR,
        lambda o, t: F.mse_loss(o, t) + (LINEAR.weight - LINEAR.weight.detach()).norm(),
        [(X, Y)],
        "not finite, although the gradient is.*add a small number",
    ),
    "no first derivative": (
        Through(lambda h: torch.special.gammainc(h.exp(), h.exp())),
        F.mse_loss,
        [(X, Y)],
        "no second derivative of igamma: use",
    ),
    "an operation of torchvision": (
        Through(
            lambda h: roi_align(h[None, None], [torch.tensor([[0.0, 0.0, 2.0, 5.0]]).double()], 2).mean()
        ),
        lambda o, t: o.square(),
        [(X, Y)],
        "no second derivative of roi_align: use",
    ),
    "an operator without a formula": (
        Through(cube),
        F.mse_loss,
        [(X, Y)],
        "derivative of .*slope_of_cube: use",
    ),
    "outputs that a hook collects": (
        COLLECTING,
        lambda o, t: F.mse_loss(o, t) + sum(h.square().mean() for h in COLLECTED),
        [(X, Y)],
        "tensors of an earlier evaluation.*empty the list",
    ),
    "weights of classes": (
        LINEAR,
        nn.CrossEntropyLoss(weight=torch.ones(2).double()),
        [(X[:2], torch.tensor([0, 0])), (X[2:], torch.tensor([0, 0, 1, 1]))],
        r"count=lambda x, y: weight\[y\]\.sum",
    ),
    "embedding bag": (
        nn.EmbeddingBag(4, 2).double(),
        F.mse_loss,
        [(torch.tensor([[0, 1], [2, 3]]), Y[:2])],
        "EmbeddingBag .*use Embedding",
    ),
    "one value per channel": (
        nn.Sequential(LINEAR, nn.BatchNorm1d(2)),
        F.mse_loss,
        [(X[:1], Y[:1])],
        "1 value",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_measured_is_refused_in_one_line(kind: str) -> None:
    model, loss, chunks, words = REFUSED[kind]
    with pytest.raises((ValueError, FloatingPointError), match=words) as refusal:
        measure(model, loss, chunks)
    assert "\n" not in str(refusal.value)


def test_the_check_can_be_left_out() -> None:
    model = Through(lambda h: h * h.detach())
    assert measure(model, F.mse_loss, [(X, Y)], check="off")["raw"].check == ""


def test_the_check_is_made_once_for_each_model_and_shape() -> None:
    model = nn.Linear(3, 2).double()
    said = [measure(model, F.mse_loss, [(X[:n], Y[:n])])["raw"].check for n in (6, 6, 5)]
    assert said == ["passed", "", "passed"]
    assert measure(model, F.mse_loss, [(X, Y)], check="full")["raw"].check == "passed"


def test_kinks_that_stay_are_said() -> None:
    model = Through(lambda h: (h - 0.1).abs() * h.relu())
    assert measure(model, F.mse_loss, [(X, Y)])["raw"].check.startswith(("passed", "not checked: piecewise"))


def test_scaled_gradients_are_refused_where_they_matter() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 1), torch.randn(9, 3), torch.randn(9, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    want = measure(model, F.mse_loss, [(x, y)], optimizer, views=("raw",))["raw"].value
    (F.mse_loss(model(x), y) * 65536).backward()
    with pytest.raises(ValueError, match=r"65536 times those of this loss.*unscale_"):
        measure(model, F.mse_loss, [(x, y)], optimizer, views=("preconditioned",))
    for p in model.parameters():
        p.grad.fill_(float("inf"))
    assert measure(model, F.mse_loss, [(x, y)], optimizer, views=("raw",))["raw"].value == want
    assert all(bool(p.grad.isinf().all()) for p in model.parameters())


# --- how many examples a chunk has ------------------------------------------------------------------------


def per_box(outputs: Tensor, boxes: list[Tensor]) -> Tensor:
    return torch.stack([((out - box) ** 2).mean() for out, box in zip(outputs, boxes, strict=True)]).mean()


def test_lists_of_boxes_count_images() -> None:
    model = nn.Linear(3, 4).double()
    boxes = [draw(n, 4, seed=n) for n in (1, 2, 1, 5, 1, 1)]
    whole = raw(model, per_box, [(X, boxes)]).value
    assert raw(model, per_box, [(X[:2], boxes[:2]), (X[2:], boxes[2:])]).value == pytest.approx(
        whole, rel=1e-5
    )


TIMES = draw(5, 7, 3), torch.arange(35).view(5, 7) % 4
IGNORING = draw(6, 3), torch.tensor([0, -100, -100, 3, 1, 1])


def by_time(out: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(out.flatten(0, 1), labels.flatten())


@pytest.mark.parametrize(
    ("loss", "chunks", "counts"),
    [
        (by_time, [(TIMES[0][:, :6], TIMES[1][:, :6]), (TIMES[0][:, 6:], TIMES[1][:, 6:])], (6, 1)),
        (F.cross_entropy, list(zip(IGNORING[0].split(3), IGNORING[1].split(3), strict=True)), (1, 3)),
    ],
    ids=["time first", "ignored labels"],
)
def test_lengths_that_may_mislead_are_not_guessed(loss: Any, chunks: Any, counts: Any) -> None:
    model = nn.Linear(3, 4).double()
    with pytest.raises(ValueError, match=r"counted in several ways .*\(x, y, n\), or count="):
        raw(model, loss, chunks)
    x, y = TIMES if loss is by_time else IGNORING
    whole = raw(model, loss, [(x, y)]).value
    stated = [(*chunk, n) for chunk, n in zip(chunks, counts, strict=True)]
    assert raw(model, loss, stated).value == pytest.approx(whole, rel=1e-5)
    by_label = dict(zip((id(y) for _, y in chunks), counts, strict=True))
    assert raw(model, loss, chunks, count=lambda x, y: by_label[id(y)]).value == pytest.approx(
        whole, rel=1e-5
    )


def test_a_chunk_without_examples_counts_nothing() -> None:
    whole = raw(LINEAR, F.mse_loss, [(X, Y)]).value
    assert raw(LINEAR, F.mse_loss, [(X, Y), (X[:0], Y[:0])]).value == pytest.approx(whole, rel=1e-9)


def test_weights_of_classes_as_counts() -> None:
    weight, labels = torch.tensor([1.0, 5.0], dtype=DOUBLE), torch.tensor([0, 0, 0, 1, 1, 1])
    loss = nn.CrossEntropyLoss(weight=weight)
    whole = raw(LINEAR, loss, [(X, labels)]).value
    halves = [(X[:4], labels[:4]), (X[4:], labels[4:])]
    got = raw(LINEAR, loss, halves, count=lambda x, y: float(weight[y].sum())).value
    assert got == pytest.approx(whole, rel=1e-5)


def test_a_packed_sequence_and_no_labels() -> None:
    class Rnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 2)

        def forward(self, packed: Any) -> Tensor:
            return self.gru(packed)[1][0]

    packed = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    assert measure(Rnn(), F.mse_loss, [(packed, torch.randn(2, 2))])["raw"].converged
    halves = [(X[:2], None), (X[2:], None)]
    whole = raw(LINEAR, lambda out, _: out.square().mean(), [(X, None)]).value
    assert raw(LINEAR, lambda out, _: out.square().mean(), halves).value == pytest.approx(whole, rel=1e-5)
