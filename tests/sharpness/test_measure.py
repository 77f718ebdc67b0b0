import copy
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optim_family.curvature import hessian
from optim_family.curvature.chunked_loss import chunk_losses
from optim_family.curvature.hessian import Hessian
from optim_family.curvature.precision import full_precision
from optim_family.optimizers.gd import GD
from optim_family.optimizers.rmsprop import RMSprop
from optim_family.sharpness import invariance
from optim_family.sharpness import measure as measure_module
from optim_family.sharpness.measure import measure
from optim_family.sharpness.probe import Reading
from optim_family.sharpness.views import VIEWS
from optim_family.space import ParameterSpace
from tests.helpers.operators_for_tests import draw, top_eigenvalue

Snapshot = dict[str, Any]
LOOSE = 0.3


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


X, Y = draw(10, 3), draw(10, 2, seed=1)
CHUNKS = [(X[:8], Y[:8]), (X[8:], Y[8:])]
BOTH = ("raw", "spherical")
knows_it_is_not_invariant = pytest.mark.filterwarnings("ignore:.*the loss is not scale-invariant")


def dense(model: nn.Module) -> Tensor:
    return Hessian(chunk_losses(model, F.mse_loss, [(X, Y)]), ParameterSpace.of(model).tensors).dense()


# --- measuring changes nothing ----------------------------------------------------------------------------


def switches() -> list[object]:
    backends: Any = torch.backends
    holders = [backends, backends.cuda.matmul, backends.cudnn, backends.mkldnn]
    holders += [getattr(backends.cudnn, name) for name in ("conv", "rnn")]
    holders += [getattr(backends.mkldnn, name) for name in ("conv", "rnn", "matmul")]
    legacy = [
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
    ]
    return [*(holder.fp32_precision for holder in holders), *legacy]


def snapshot(model: nn.Module) -> Snapshot:
    """Everything that a measurement could disturb, copied."""
    return {
        "parameters": {name: p.detach().clone() for name, p in model.named_parameters()},
        "identities": {name: id(p) for name, p in model.named_parameters()},
        "versions": {name: p._version for name, p in model.named_parameters()},
        "gradients": {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()},
        "buffers": {name: b.clone() for name, b in model.named_buffers()},
        "buffer identities": {name: id(b) for name, b in model.named_buffers()},
        "training": {name: m.training for name, m in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "torch random": torch.get_rng_state(),
        "torch seed": torch.initial_seed(),
        "python random": random.getstate(),
        "numpy random": (np.random.get_state()[1].tobytes(), np.random.get_state()[2]),
        "switches": switches(),
        "grad mode": torch.is_grad_enabled(),
    }


def assert_unchanged(before: Snapshot, after: Snapshot) -> None:
    assert [what for what in before if not same(before[what], after[what])] == []


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """In training mode, with dropout; some tensors frozen, one layer in eval mode, one gradient standing."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=10, drop_rate=0.2).train()
    for name, p in model.named_parameters():
        p.requires_grad_("conv" not in name or not name.startswith(("layer3", "layer4")))
    model.layer1[0].bn1.eval()
    model.fc.weight.grad = torch.full_like(model.fc.weight, 0.5)
    return model


IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)


@knows_it_is_not_invariant
def test_measuring_a_resnet_in_training_mode_changes_nothing(resnet: nn.Module) -> None:
    before, values = snapshot(resnet), []
    assert sum(name.endswith("running_var") for name in before["buffers"]) == 20
    for hvp in ("retained", "rebuilt"):
        readings = measure(resnet, F.cross_entropy, [IMAGES], views=BOTH, rtol=LOOSE, hvp=hvp)
        values.append(readings["raw"].value)
        assert readings["spherical"].value > readings["raw"].value > 0
        assert_unchanged(before, snapshot(resnet))
    assert values[0] == values[1]  # the free memory must not decide a number


def test_measuring_with_an_optimizer_takes_back_the_gradients_that_it_lends(resnet: nn.Module) -> None:
    optimizer, before = RMSprop(resnet.parameters(), lr=0.01), snapshot(resnet)
    readings = measure(resnet, F.cross_entropy, [IMAGES], optimizer, views=["preconditioned"], rtol=LOOSE)
    assert readings["preconditioned"].threshold == pytest.approx(2 * (1 - 0.01 * 0.05) / 0.01, rel=1e-12)
    assert_unchanged(before, snapshot(resnet))


def test_measuring_leaves_the_state_of_a_new_optimizer_empty() -> None:
    model = mlp()
    optimizer = RMSprop(model.parameters(), lr=0.01)
    before = copy.deepcopy(optimizer.state_dict())
    measure(model, F.mse_loss, CHUNKS, optimizer, views=["preconditioned"])
    assert optimizer.state_dict() == before


class Failing:
    """A cross-entropy that raises at a given call."""

    def __init__(self, at: int) -> None:
        self.calls, self.at = 0, at

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise RuntimeError("the loss has failed")
        return F.cross_entropy(output, target)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_loss_that_raises_leaves_nothing_changed(resnet: nn.Module, at: int) -> None:
    """In the first chunk, in the second with gradients lent, while graphs are built, and within a product."""
    small = [(images, labels) for images, labels in zip(IMAGES[0].split(2), IMAGES[1].split(2), strict=True)]
    before, loss_fn = snapshot(resnet), Failing(at)
    optimizer = RMSprop(resnet.parameters(), lr=0.01)
    with pytest.raises(RuntimeError, match="the loss has failed"):
        measure(resnet, loss_fn, small, optimizer, views=["preconditioned"], rtol=LOOSE, hvp="rebuilt")
    assert loss_fn.calls == at
    assert_unchanged(before, snapshot(resnet))


def test_the_snapshot_sees_what_an_ordinary_forward_disturbs(resnet: nn.Module) -> None:
    """So that the tests above can fail."""
    model = copy.deepcopy(resnet)
    before = snapshot(model)
    model(IMAGES[0]).sum().backward()
    after = snapshot(model)
    assert [what for what in before if not same(before[what], after[what])] == [
        "gradients",
        "buffers",
        "torch random",
    ]


def test_measuring_twice_gives_the_same_numbers() -> None:
    model = mlp()
    first, second = (measure(model, F.mse_loss, CHUNKS)["raw"] for _ in range(2))
    assert (first.value, first.residual, first.products) == (second.value, second.residual, second.products)


def test_the_chunks_may_come_from_a_generator_or_a_loader() -> None:
    model, expected = mlp(), measure(mlp(), F.mse_loss, CHUNKS)["raw"].value
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    before = snapshot(model)
    assert measure(model, F.mse_loss, (chunk for chunk in CHUNKS))["raw"].value == expected
    assert measure(model, F.mse_loss, loader)["raw"].value == expected
    assert_unchanged(before, snapshot(model))


def test_measuring_works_where_gradients_are_off() -> None:
    expected = measure(mlp(), F.mse_loss, CHUNKS)["raw"].value
    with torch.no_grad():
        assert measure(mlp(), F.mse_loss, CHUNKS)["raw"].value == expected
        assert not torch.is_grad_enabled()


# --- precision --------------------------------------------------------------------------------------------


@pytest.fixture
def lax() -> Iterator[None]:
    """Reduced precision allowed by the user, as for training."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def test_reduced_precision_is_off_inside_and_as_it_was_outside(lax: None) -> None:
    backends: Any = torch.backends
    before = switches()
    inside: list[str] = []

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        for holder in (
            backends.cuda.matmul,
            backends.cudnn.conv,
            backends.mkldnn.matmul,
            backends.mkldnn.conv,
        ):
            inside.append(holder.fp32_precision)
        return F.mse_loss(output, target)

    measure(mlp(), loss_fn, CHUNKS)
    assert set(inside) == {"ieee"}
    assert switches() == before
    assert "bf16" in before  # the user did allow it


def test_precision_is_restored_after_an_error(lax: None) -> None:
    before = switches()
    with pytest.raises(ZeroDivisionError), full_precision():
        _ = 1 / 0
    assert switches() == before


# --- what is measured -------------------------------------------------------------------------------------


@knows_it_is_not_invariant
def test_the_readings_are_those_of_the_dense_hessian() -> None:
    model = mlp()
    matrix, w = dense(model), ParameterSpace.of(model).weights()
    readings = measure(model, F.mse_loss, CHUNKS, views=BOTH, rtol=1e-10, k=3)
    assert tuple(readings) == BOTH
    assert readings["raw"].top == pytest.approx(torch.linalg.eigvalsh(matrix).flip(0)[:3].tolist(), rel=1e-8)
    assert readings["spherical"].value == pytest.approx(float(w @ w) * top_eigenvalue(matrix), rel=1e-8)
    assert readings["raw"].threshold is None


def test_the_model_is_measured_in_its_present_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    training = measure(model.train(), F.mse_loss, CHUNKS)["raw"].value
    evaluating = measure(model.eval(), F.mse_loss, CHUNKS)["raw"].value
    assert training != pytest.approx(evaluating, rel=1e-2)


@knows_it_is_not_invariant
def test_gradient_descent_gets_its_thresholds() -> None:
    model = mlp()
    w = ParameterSpace.of(model).weights()
    optimizer = GD(model.parameters(), lr=0.1, weight_decay=0.5)
    readings = measure(model, F.mse_loss, CHUNKS, optimizer, views=list(VIEWS), rtol=1e-8)
    threshold = 2 * (1 - 0.05) / 0.1
    assert readings["raw"].threshold == pytest.approx(threshold, rel=1e-12)
    assert readings["preconditioned"].threshold == pytest.approx(threshold, rel=1e-12)
    assert readings["spherical"].threshold == pytest.approx(threshold * float(w @ w), rel=1e-12)
    assert readings["raw"].ratio == pytest.approx(top_eigenvalue(dense(model)) / threshold, rel=1e-7)
    assert readings["preconditioned"].value == pytest.approx(readings["raw"].value, rel=1e-7)


def next_metric(model: nn.Module) -> Tensor:
    """P = √v + ε of scale-invariant RMSprop before its first step, v = (ρ g)², from the full gradient."""
    space = ParameterSpace.of(model)
    gradient = torch.autograd.grad(F.mse_loss(model(X), Y), space.tensors)
    return torch.cat([g.reshape(-1) for g in gradient]).abs() * space.weights().norm() + 1e-8


def test_rmsprop_is_measured_in_the_metric_of_its_next_step() -> None:
    """With the gradient of the measured loss, over all chunks, where the user has computed none."""
    model = mlp()
    half = torch.diag(next_metric(model) ** -0.5)
    optimizer = RMSprop(model.parameters(), lr=0.01, weight_decay=0.5)
    readings = measure(model, F.mse_loss, CHUNKS, optimizer, views=["raw", "preconditioned"], rtol=1e-9)
    assert readings["preconditioned"].value == pytest.approx(
        top_eigenvalue(half @ dense(model) @ half), rel=1e-7
    )
    assert readings["preconditioned"].threshold == pytest.approx(2 * (1 - 0.005) / 0.01, rel=1e-12)
    assert readings["raw"].threshold is None
    assert all(p.grad is None for p in model.parameters())


def test_a_preconditioner_that_shrinks_with_the_gradient_raises_its_own_sharpness() -> None:
    """L = w⁴/4 and P = |g|: the sharpness 3w² falls on the way down, 3/w in the metric rises."""
    model = nn.Linear(1, 1, bias=False).double()
    for w in (2.0, 1.0, 0.5):
        model.weight.data.fill_(w)
        optimizer = RMSprop(model.parameters(), eps=0.0, preconditioning="raw")
        chunks = [(torch.ones(1, 1, dtype=torch.float64), torch.ones(1))]
        readings = measure(
            model, lambda y, _: y.pow(4).sum() / 4, chunks, optimizer, views=["raw", "preconditioned"]
        )
        assert readings["raw"].value == pytest.approx(3 * w**2, rel=1e-12)
        assert readings["preconditioned"].value == pytest.approx(3 / w, rel=1e-12)


def test_gradients_that_stand_are_those_of_the_next_step() -> None:
    model = mlp()
    space = ParameterSpace.of(model)
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.25)
    half = torch.eye(space.dim, dtype=torch.float64) * float(0.25 * space.weights().norm() + 1e-8) ** -0.5
    optimizer = RMSprop(model.parameters(), lr=0.01)
    reading = measure(model, F.mse_loss, CHUNKS, optimizer, views=["preconditioned"], rtol=1e-9)[
        "preconditioned"
    ]
    assert reading.value == pytest.approx(top_eigenvalue(half @ dense(model) @ half), rel=1e-7)


def test_an_optimizer_measures_the_weights_that_it_trains_in_its_own_order() -> None:
    """The metric follows the optimizer's order; what the optimizer does not hold is not measured."""
    model = mlp()
    optimizer = RMSprop(reversed(list(model[2].parameters())), lr=0.01)
    model[0].requires_grad_(False)
    half = torch.diag(next_metric(model) ** -0.5)
    expected = top_eigenvalue(half @ dense(model) @ half)
    model[0].requires_grad_(True)
    reading = measure(model, F.mse_loss, CHUNKS, optimizer, views=["preconditioned"], rtol=1e-9)[
        "preconditioned"
    ]
    assert reading.value == pytest.approx(expected, rel=1e-7)


def test_a_torch_optimizer_has_the_metric_and_the_threshold_of_its_step() -> None:
    """The first step of torch's RMSprop has v = (1 − α) g², so that P = √(1 − α) |g| + ε."""
    model = mlp()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01, alpha=0.9, eps=1e-3)
    gradients = torch.autograd.grad(F.mse_loss(model(X), Y), list(model.parameters()))
    metric = 0.1**0.5 * torch.cat([g.flatten() for g in gradients]).abs() + 1e-3
    half = torch.diag(metric**-0.5)
    reading = measure(model, F.mse_loss, CHUNKS, optimizer, views=["preconditioned"], rtol=1e-9)[
        "preconditioned"
    ]
    assert reading.value == pytest.approx(top_eigenvalue(half @ dense(model) @ half), rel=1e-7)
    assert reading.threshold == 200.0
    assert not optimizer.state and all(p.grad is None for p in model.parameters())


def test_the_momentum_of_a_torch_optimizer_is_in_its_threshold() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    reading = measure(model, F.mse_loss, CHUNKS, optimizer)["raw"]
    assert reading.value == pytest.approx(top_eigenvalue(dense(model)), rel=1e-3)
    assert reading.threshold == pytest.approx(38.0)


def test_of_an_optimizer_without_a_metric_there_is_the_sharpness_but_no_threshold() -> None:
    model = mlp()
    optimizer = torch.optim.Adafactor(model.parameters())
    with pytest.warns(UserWarning, match="no threshold: there is no metric: Adafactor declares none"):
        readings = measure(model, F.mse_loss, CHUNKS, optimizer)
    assert readings["raw"].value == pytest.approx(top_eigenvalue(dense(model)), rel=1e-3)
    assert {name: reading.threshold for name, reading in readings.items()} == {"raw": None}
    with pytest.raises(ValueError, match="there is no metric: Adafactor declares none"):
        measure(model, F.mse_loss, CHUNKS, optimizer, views=["preconditioned"])


def test_the_mode_reaches_the_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    def unplanned(*_: object) -> str:
        raise AssertionError("planned although hvp was given")

    monkeypatch.setattr(hessian.Hessian, "_plan", unplanned)
    assert measure(mlp(), F.mse_loss, CHUNKS, hvp="rebuilt")["raw"].value > 0


def test_many_chunks_can_be_read_from_a_sample() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(20, 12), nn.Tanh(), nn.Linear(12, 3))
    chunks = [(torch.randn(64, 20), torch.randn(64, 3)) for _ in range(10)]
    sampled = measure(model, F.mse_loss, chunks, reading="sampled")
    assert measure(model, F.mse_loss, chunks, reading="auto")["raw"].method == "lanczos"  # does not pay
    exact = measure(model, F.mse_loss, chunks, rtol=1e-6)
    for view, reading in sampled.items():
        assert reading.sample_products and reading.sample_share == pytest.approx(0.1)
        assert exact[view].value - reading.error <= reading.value * (1 + 1e-5)
        assert reading.value == pytest.approx(exact[view].value, rel=1e-3)
    few = measure(model, F.mse_loss, chunks[:7], reading="sampled")["raw"]
    assert few.method == "lanczos" and not few.sample_products
    with pytest.raises(ValueError, match="no reading 'fast'"):
        measure(model, F.mse_loss, chunks, reading="fast")  # type: ignore[arg-type]


# --- refusals ---------------------------------------------------------------------------------------------


def refused(call: Callable[[], dict[str, Reading]]) -> str:
    with pytest.raises(ValueError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_view_is_named_beside_the_known_ones() -> None:
    message = refused(lambda: measure(mlp(), F.mse_loss, CHUNKS, views=["raw", "sphericle"]))
    assert "no view 'sphericle'" in message
    assert all(name in message for name in VIEWS)


def test_a_model_without_trained_parameters_is_refused() -> None:
    frozen = mlp().requires_grad_(False)
    assert "no parameter that requires a gradient" in refused(lambda: measure(frozen, F.mse_loss, CHUNKS))
    optimizer = GD(mlp().parameters(), lr=0.1)
    for p in optimizer.param_groups[0]["params"]:
        p.requires_grad_(False)
    message = refused(lambda: measure(frozen, F.mse_loss, CHUNKS, optimizer))
    assert "the optimizer trains no parameter of this Sequential" in message


def test_an_optimizer_of_another_model_is_refused_rather_than_read_as_flat() -> None:
    optimizer = GD(mlp().parameters(), lr=0.1)
    message = refused(lambda: measure(mlp(), F.mse_loss, CHUNKS, optimizer))
    assert "the optimizer trains no parameter of this Sequential" in message


def test_no_chunks_are_refused() -> None:
    assert "nothing to measure on" in refused(lambda: measure(mlp(), F.mse_loss, []))


@pytest.mark.parametrize("view", ["preconditioned", "spherical-preconditioned"])
def test_a_preconditioned_view_needs_an_optimizer_with_a_metric(view: str) -> None:
    message = refused(lambda: measure(mlp(), F.mse_loss, CHUNKS, views=[view]))
    assert f"{view!r} needs an optimizer with a known metric" in message


def test_a_loss_that_is_not_finite_says_so() -> None:
    with pytest.raises(FloatingPointError, match="the loss of chunk 0 is inf"):
        measure(mlp(), lambda output, target: F.mse_loss(output, target) * float("inf"), CHUNKS)


def test_the_public_name_is_the_function() -> None:
    import optim_family

    assert optim_family.measure is measure_module.measure


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rtol": -1.0}, "rtol must lie between 0 and 1; got -1.0"),
        ({"rtol": 2.0}, "rtol must lie between 0 and 1; got 2.0"),
        ({"rtol": float("nan")}, "rtol must lie between 0 and 1; got nan"),
        ({"views": "preconditioned"}, r"views must be a list of names; write \['preconditioned'\]"),
        ({"loss_fn": nn.MSELoss}, r"loss_fn is the class MSELoss; give an object of it: MSELoss\(\)"),
        ({"optimizer": object()}, "the optimizer object has no param_groups"),
        ({"hvp": "retain"}, "there is no hvp 'retain'; did you mean 'retained'"),
        ({"check": "on"}, "there is no check 'on'; did you mean 'once'"),
        ({"budget": 0}, "a generalised sharpness needs a budget of at least 2 products; got 0"),
        ({"views": ["spherial"]}, "there is no view 'spherial'; did you mean 'spherical'"),
    ],
)
def test_an_argument_without_a_meaning_is_refused_in_one_line(options: dict[str, Any], says: str) -> None:
    arguments = {"loss_fn": F.mse_loss, "chunks": CHUNKS, **options}
    with pytest.raises(ValueError, match=says) as caught:
        measure(mlp(), **arguments)
    assert "\n" not in str(caught.value)


def test_a_decay_that_turns_the_weights_over_has_no_threshold() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=20.0)
    with pytest.raises(
        ValueError, match=r"weight decay of this SGD turns the weights over .* threshold is -"
    ):
        measure(model, F.mse_loss, CHUNKS, optimizer, views=["raw"])


def test_the_default_views_have_the_metric_of_an_adaptive_optimizer() -> None:
    model = mlp()
    adaptive, plain = torch.optim.AdamW(model.parameters()), torch.optim.SGD(model.parameters(), lr=0.1)
    assert [*measure(model, F.mse_loss, CHUNKS)] == ["raw"]
    assert [*measure(model, F.mse_loss, CHUNKS, plain)] == ["raw"]
    readings = measure(model, F.mse_loss, CHUNKS, adaptive)
    assert [*readings] == ["raw", "preconditioned"]
    assert readings["preconditioned"].threshold is not None
    normal = invariant()
    adaptive = torch.optim.AdamW(normal[0].parameters())
    assert [*measure(normal, F.mse_loss, CHUNKS)] == ["spherical"]
    assert [*measure(normal, F.mse_loss, CHUNKS, adaptive)] == ["spherical", "spherical-preconditioned"]


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    ("loss_fn", "y"), [(F.mse_loss, draw(6, 2)), (F.cross_entropy, torch.zeros(6, dtype=torch.long))]
)
def test_x_and_y_of_different_lengths_are_refused(loss_fn: Any, y: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^chunk 1: x has 8 examples and y 6: .* \(.*[^.]\)\.$") as caught:
        measure(mlp(), loss_fn, [(X[:6], y), (X[:8], y)])
    assert "\n" not in str(caught.value) and caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("loss_fn", "y", "problem"),
    [
        (
            F.cross_entropy,
            torch.zeros(6, 3, dtype=torch.long),
            "cross_entropy fails for outputs of shape [6, 2], float64 and y of shape [6, 3], int64: "
            "give y in shape [6] as integer classes, or in shape [6, 2]",
        ),
        (
            nn.CrossEntropyLoss(),
            draw(6),
            "y of shape [6], float64: give y as integer classes, or in shape [6, 2]",
        ),
        (
            nn.BCEWithLogitsLoss(),
            draw(6),
            "BCEWithLogitsLoss fails for outputs of shape [6, 2], float64 and y of shape [6], float64",
        ),
        (F.cross_entropy, torch.zeros(6, 2, dtype=torch.long), "int64: give y as floating-point numbers"),
    ],
    ids=lambda value: "" if isinstance(value, Tensor | str) else type(value).__name__,
)
def test_targets_that_the_loss_refuses_are_named_with_a_way_out(
    loss_fn: Any, y: Tensor, problem: str
) -> None:
    with pytest.raises(ValueError, match=rf"^chunk 0: .*{re.escape(problem)}.* \(.+\)\.$") as caught:
        measure(mlp(), loss_fn, [(X[:6], y)])
    assert "\n" not in str(caught.value) and isinstance(caught.value.__cause__, Exception)


def test_an_error_of_the_loss_stays_its_own_where_the_targets_fit() -> None:
    def failing(outputs: Tensor, y: Tensor) -> Tensor:
        raise ValueError("a matter of the loss")

    for y in (draw(6, 2), torch.zeros(6, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"^a matter of the loss$"):
            measure(mlp(), failing, [(X[:6], y)])


def test_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^chunk 0: x is a ndarray: give a tensor, torch\.as_tensor\(x\) "):
        measure(mlp(), F.mse_loss, [(X.numpy(), Y)])


def test_lengths_that_differ_by_design_are_measured() -> None:
    """Labels for each token of a sequence whose time axis comes first."""
    model, y = nn.Linear(3, 2).double(), torch.arange(10) % 2
    reading = measure(model, lambda out, target: F.cross_entropy(out.reshape(-1, 2), target), [(X[None], y)])
    assert reading["raw"].value > 0


def test_an_error_of_the_model_stays_its_own() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        measure(mlp(), F.mse_loss, [(Y, X)])


# --- spherical views are of scale-invariant losses --------------------------------------------------------


def invariant() -> nn.Sequential:
    """A network whose loss depends on the direction of its trained weights."""
    torch.manual_seed(0)
    last = nn.Linear(8, 2).requires_grad_(False)
    return nn.Sequential(
        nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8, affine=False), nn.Tanh(), last
    ).double()


def wide() -> nn.Module:
    """A plain network in which ⟨g, w⟩ is 1e-3 ‖g‖‖w‖ by the number of dimensions alone."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2048), nn.ReLU(), nn.Linear(2048, 2)).double()


@pytest.mark.parametrize("make", [mlp, wide])
@pytest.mark.parametrize("chunks", [CHUNKS, [(X, Y)]])
def test_a_spherical_view_of_another_loss_gets_a_warning_and_the_same_number(make: Any, chunks: Any) -> None:
    model = make()
    w = ParameterSpace.of(model).weights()
    raw = measure(model, F.mse_loss, chunks, views=["raw"], rtol=1e-8)["raw"].value
    with pytest.warns(UserWarning, match=r"^spherical sharpness: the loss is not scale-invariant .* raw or"):
        reading = measure(model, F.mse_loss, chunks, views=["spherical"], rtol=1e-8)["spherical"]
    assert reading.value == pytest.approx(float(w @ w) * raw, rel=1e-7)


def test_a_spherical_view_of_an_invariant_loss_gets_no_warning_wherever_training_has_led() -> None:
    model, last = invariant(), 1.0
    optimizer = torch.optim.SGD(model[0].parameters(), lr=1.0, momentum=0.9)
    y = model(X).detach() + 0.01 * Y
    for step in range(400):
        optimizer.zero_grad()
        loss = F.mse_loss(model(X), y)
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            assert [*measure(model, F.mse_loss, [(X, y)], views=["spherical"])] == ["spherical"]
            assert float(loss.detach()) < last
            last = float(loss.detach())


def test_evaluation_mode_is_another_loss() -> None:
    model = invariant()
    model(X)
    with pytest.warns(UserWarning, match="not scale-invariant"):
        measure(model.eval(), F.mse_loss, CHUNKS, views=["spherical"])


def test_the_check_of_a_spherical_view_costs_two_gradients_of_one_chunk_and_leaves_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At most: that of a single chunk is at hand. Other views cost none."""
    calls: list[Any] = []
    original = invariance.chunk_gradient
    monkeypatch.setattr(invariance, "chunk_gradient", lambda *a: (calls.append(a[0]), original(*a))[1])
    model = invariant()
    before = [p.detach().clone() for p in model.parameters()]
    for chunks, views, gradients in ((CHUNKS, None, 2), ([(X, Y)], None, 1), (CHUNKS, ["raw"], 0)):
        calls.clear()
        measure(model, F.mse_loss, chunks, views=views)
        assert len(calls) == gradients
    assert all(map(torch.equal, before, model.parameters()))
