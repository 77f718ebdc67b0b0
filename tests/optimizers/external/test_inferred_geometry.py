"""The geometry of torch's and timm's optimizers, held against the real steps of the real classes."""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import timm.optim
import torch
from timm.optim.lamb import Lamb
from timm.optim.lion import Lion
from timm.optim.rmsprop_tf import RMSpropTF
from timm.optim.sgdw import SGDW
from torch import Tensor, nn
from torch.optim import (
    ASGD,
    LBFGS,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
)

from optim_family import measure
from optim_family.conformance.harness import gradients
from optim_family.geometry import (
    Geometry,
    ScalarMetric,
    UnknownMetric,
    momentum_threshold,
    nesterov_threshold,
)
from optim_family.optimizers.external.inferred_geometry import geometry, update_rules, why_unknown
from optim_family.optimizers.motion import MomentumUpdate
from optim_family.sharpness.probe import view_operator, view_threshold
from optim_family.sharpness.views import VIEWS
from optim_family.space import ParameterSpace, unflatten

SHAPES = ((4, 3), (5,))
SETTLE_STEPS, OSCILLATION = 40, 100
FAR_STEP = 1e14  # steps after which (1 − 1e-12)ᵗ has vanished too
BETA2_FROZEN = 1 - 1e-12


def space(seed: int = 0, dtype: torch.dtype = torch.float64) -> ParameterSpace:
    generator = torch.Generator().manual_seed(seed)
    return ParameterSpace(
        {
            f"w{i}": torch.randn(s, generator=generator, dtype=dtype).requires_grad_()
            for i, s in enumerate(SHAPES)
        }
    )


def lend(where: ParameterSpace, gradient: Tensor) -> None:
    for tensor, part in zip(where.tensors, unflatten(gradient, where.tensors), strict=True):
        tensor.grad = part.clone().to(tensor)


def step(optimizer: Optimizer, where: ParameterSpace, gradient: Tensor) -> Tensor:
    lend(where, gradient)
    optimizer.step()
    return where.weights()


def look(optimizer: Optimizer, where: ParameterSpace, gradient: Tensor | None = None) -> Geometry:
    lend(where, torch.ones(where.dim) if gradient is None else gradient)
    return geometry(optimizer)


# --- holding P still --------------------------------------------------------------------------------------


def nothing(optimizer: Optimizer) -> None:
    """P never moves."""


def group(**values: Any) -> Callable[[Optimizer], None]:
    """Hyper-parameters that hold P still, once the correction of the momentum's bias has died out."""

    def hold(optimizer: Optimizer) -> None:
        optimizer.param_groups[0].update(values)
        for state in optimizer.state.values():
            if "exp_avg" in state:
                state["step"].fill_(FAR_STEP)

    return hold


def age(optimizer: Optimizer) -> None:
    """Bias corrections have died out long ago, and β₂ is as good as 1."""
    optimizer.param_groups[0]["betas"] = (optimizer.param_groups[0]["betas"][0], BETA2_FROZEN)
    for state in optimizer.state.values():
        state["step"].fill_(FAR_STEP)
        if "mu_product" in state:
            state["mu_product"].fill_(0.0)


def rest(optimizer: Optimizer) -> None:
    """Momentum is forgotten, or it would drown tiny weights."""
    for state in optimizer.state.values():
        for key in state.keys() & {"momentum_buffer", "exp_avg"}:
            state[key].zero_()


def age_adagrad(optimizer: Optimizer) -> None:
    """η / (1 + (t − 1) · decay) with decay = 1 / t is η / 2; Σg² forgets no more than it takes in."""
    optimizer.param_groups[0]["lr_decay"] = 1 / FAR_STEP
    for state in optimizer.state.values():
        state["step"].fill_(FAR_STEP)


@dataclass(frozen=True)
class Case:
    kind: type[Optimizer]
    values: dict[str, Any]
    hold: Callable[[Optimizer], None] = nothing
    size: float = 1e-12  # of the weights: tiny gradients do not move a metric
    expected: float | None = None  # threshold · η, where the theory has it

    def __str__(self) -> str:
        return ",".join([self.kind.__name__, *(f"{k}={v}" for k, v in self.values.items() if k != "lr")])


SLOW = {"lr": 0.1, "weight_decay": 0.01}  # s = 1e-3: coupled decay that does not oscillate by itself
CASES = [
    Case(SGD, {"lr": 0.1}, expected=2.0),
    Case(SGD, {**SLOW}, expected=2.0 - 2e-3),
    Case(SGD, {"lr": 0.1, "momentum": 0.9}, expected=3.8),
    Case(SGD, {**SLOW, "momentum": 0.9}, expected=2 * (1 - 1e-3 + 0.9)),
    Case(SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.6}, expected=3.8 / 0.4),
    Case(SGD, {**SLOW, "momentum": 0.9, "dampening": 0.6}),
    Case(SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, expected=3.8 / 2.8),
    Case(SGD, {**SLOW, "momentum": 0.9, "nesterov": True}),
    Case(SGDW, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}, expected=2 * (1 - 0.02 + 0.9)),
    Case(SGDW, {"lr": 0.1, "momentum": 0.5, "nesterov": True, "weight_decay": 0.5}),
    Case(ASGD, {"lr": 0.125, "lambd": 0.5, "alpha": 0.0}, expected=2 * (1 - 0.0625)),
    Case(Adam, {"lr": 0.1}, age, expected=38.0),
    Case(Adam, {**SLOW, "betas": (0.8, 0.99)}, age),
    Case(Adam, {"lr": 0.1, "amsgrad": True, "eps": 0.1}, age, expected=38.0),
    Case(AdamW, {"lr": 0.1, "weight_decay": 0.5}, age, expected=2 * (1 - 0.05 + 0.9) / 0.1),
    Case(NAdam, {"lr": 0.1}, age, expected=38.0 / 2.8),
    Case(NAdam, {"lr": 0.1, "momentum_decay": 0.0}, age),
    Case(NAdam, {"lr": 0.1, "weight_decay": 0.5, "decoupled_weight_decay": True}, age),
    Case(RAdam, {"lr": 0.1}, age, expected=38.0),
    Case(RAdam, {"lr": 0.1, "betas": (0.9, 0.5)}, group(), expected=38.0),  # never enough gradients: P = I
    Case(RAdam, {"lr": 0.1, "weight_decay": 0.5, "decoupled_weight_decay": True}, age),
    Case(Adamax, {"lr": 0.1}, group(betas=(0.9, 1.0)), expected=38.0),
    Case(Adamax, {**SLOW, "eps": 0.1}, group(betas=(0.9, 1.0))),
    Case(RMSprop, {"lr": 0.1}, group(alpha=1.0), expected=2.0),
    Case(RMSprop, {**SLOW, "momentum": 0.9, "centered": True, "eps": 0.1}, group(alpha=1.0)),
    Case(RMSpropTF, {"lr": 0.1, "momentum": 0.9, "eps": 0.1}, group(alpha=1.0), expected=3.8),
    Case(RMSpropTF, {"lr": 0.1, "momentum": 0.9, "lr_in_momentum": False}, group(alpha=1.0), expected=3.8),
    Case(RMSpropTF, {"lr": 0.1, "weight_decay": 0.5, "decoupled_decay": True}, group(alpha=1.0)),
    Case(Adagrad, {"lr": 0.1}, expected=2.0),
    Case(Adagrad, {**SLOW, "lr_decay": 1e-3}, age_adagrad),
    Case(Adadelta, {"lr": 1.0}, group(rho=1.0), expected=2.0),
    Case(Adadelta, {"lr": 0.7, "weight_decay": 0.1, "eps": 1e-3}, group(rho=1.0)),
]


def warmed(case: Case) -> tuple[Optimizer, ParameterSpace]:
    where = space()
    optimizer = case.kind(where.tensors, **case.values)
    for gradient in gradients(where.dim, 30, seed=1):
        step(optimizer, where, gradient)
    rest(optimizer)
    case.hold(optimizer)
    return optimizer, where


def growth(case: Case, factor: float) -> float:
    """By what an oscillation at factor · threshold changes, compared with a weight without gradient."""
    optimizer, where = warmed(case)
    geometry_now = look(optimizer, where, torch.zeros(where.dim))
    root, inverse = (geometry_now.metric.power(e).dense() for e in (0.5, -0.5))
    basis = torch.linalg.qr(next(gradients(where.dim**2, 1, seed=2)).view(where.dim, where.dim)).Q
    spectrum = torch.zeros(where.dim, dtype=torch.float64)
    spectrum[:3] = geometry_now.threshold * torch.tensor([factor, 0.1, 0.01])
    hessian = root @ basis @ torch.diag(spectrum) @ basis.T @ root
    where.assign(case.size * inverse @ (basis[:, 0] + 100 * basis[:, 3]))
    sizes = [math.nan]
    for count in range(SETTLE_STEPS + OSCILLATION):
        y = basis.T @ root @ step(optimizer, where, hessian @ where.weights())
        sizes.append(float(abs(y[0] / y[3])))
        size = math.hypot(*sizes[-2:])  # two steps together: below the threshold it turns while it shrinks
        if count == SETTLE_STEPS:
            reference = size
        elif count > SETTLE_STEPS and not 0.1 < size / reference < 10:
            break
    return size / reference


@pytest.mark.parametrize("case", CASES, ids=str)
def test_real_steps_oscillate_above_the_threshold_and_not_below(case):
    assert growth(case, 0.995) < 1 < growth(case, 1.005)


@pytest.mark.parametrize("case", [case for case in CASES if case.expected], ids=str)
def test_thresholds_are_those_of_the_theory(case):
    optimizer, where = warmed(case)
    assert look(optimizer, where).threshold * case.values["lr"] == pytest.approx(case.expected, rel=1e-12)


# --- the step itself --------------------------------------------------------------------------------------

STEPS = [
    *(case for case in CASES if not (case.kind in (RMSprop, RMSpropTF) and case.values.get("momentum"))),
    Case(RMSprop, {"lr": 0.1, "centered": True, "eps": 0.1}),
    Case(NAdam, {**SLOW, "momentum_decay": 0.5}),
    Case(SGDW, {**SLOW, "corrected_weight_decay": True}),
    Case(Lamb, {"lr": 0.1}),
    Case(Lamb, {"lr": 0.1, "weight_decay": 0.5, "max_grad_norm": None}),
    Case(Lamb, {"lr": 0.1, "weight_decay": 0.5, "max_grad_norm": None, "decoupled_decay": True}),
    Case(Lamb, {"lr": 0.1, "max_grad_norm": None, "grad_averaging": False, "bias_correction": False}),
    Case(Lamb, {"lr": 0.1, "weight_decay": 0.0, "max_grad_norm": None}),
    Case(Lamb, {"lr": 0.1, "max_grad_norm": None, "always_adapt": True, "trust_clip": True}),
]


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_every_real_step_is_the_one_that_was_described(case):
    """w' = (1 − s) w − η P⁻¹ (a g + b m), from the first step on; m ← β m + g is kept up here."""
    where = space()
    optimizer = case.kind(where.tensors, **case.values)
    memory = [torch.zeros_like(w) for w in where.tensors]
    for count, gradient in enumerate(gradients(where.dim, 12, seed=3)):
        if count == 9:  # a schedule
            optimizer.param_groups[0]["lr"] = 0.7 * case.values["lr"]
        clip = case.values.get("max_grad_norm", 1.0) if case.kind is Lamb else None
        gradient = gradient / gradient.norm() * clip * 3 if clip else gradient  # always clipped the same
        lend(where, gradient)
        expected = []
        for i, (w, m) in enumerate(zip(where.tensors, update_rules(optimizer), strict=True)):
            g = w.grad + (m.coupled or 0.0) * w.detach()
            first = case.values.get("dampening") and count == 0  # torch takes the first gradient in whole
            memory[i] = m.beta * memory[i] + (g / m.momentum_weight if first else g)
            update = (m.gradient_weight * g + m.momentum_weight * memory[i]) / m.metric
            expected.append((1 - m.lr * m.decoupled) * w.detach() - m.lr * update)
        before = where.weights()
        moved = step(optimizer, where, gradient) - before
        error = moved - (torch.cat([e.reshape(-1) for e in expected]) - before)
        assert float(error.norm()) <= 1e-12 * float(before.norm())


def test_lamb_is_at_its_threshold_where_norm_trust_and_clipping_stand_still():
    """A tiny oscillation beside a large constant gradient b, along which nothing is curved."""
    grown = []
    for factor in (0.98, 1.02):
        where = space()
        optimizer = Lamb(where.tensors, lr=1e-3, weight_decay=0.0, always_adapt=True)
        for gradient in gradients(where.dim, 30, seed=1):
            step(optimizer, where, gradient)
        optimizer.param_groups[0].update(betas=(0.9, BETA2_FROZEN), step=torch.tensor(FAR_STEP))
        inverse = look(optimizer, where, torch.ones(where.dim)).metric.power(-1).dense().diagonal()
        drift = next(gradients(where.dim, 1, seed=4))
        for w, part in zip(
            unflatten(where.weights(), where.tensors), unflatten(drift, where.tensors), strict=True
        ):
            part -= (part * w).sum() / w.square().sum() * w  # ‖w‖ grows in second order only
        b = 5 * (drift / inverse) / (drift / inverse).norm()
        for state, part in zip(optimizer.state.values(), unflatten(b, where.tensors), strict=True):
            state["exp_avg"].copy_(part / 5)  # as after many steps along b, clipped to norm 1
        geometry_now = look(optimizer, where, b)
        root = geometry_now.metric.power(0.5).dense().diagonal()
        q = next(gradients(where.dim, 1, seed=5))
        flat = torch.linalg.qr(torch.stack([b / root, root * where.weights(), q], dim=1)).Q
        q = flat[:, 2]  # P^{1/2} q is orthogonal to w, and H P⁻¹ b = 0
        start, sizes = where.weights(), []
        where.assign(start + 1e-9 * q / root)
        for _ in range(SETTLE_STEPS + OSCILLATION):
            x = q @ (root * where.weights())
            sizes.append(abs(float(x)))
            step(optimizer, where, b + geometry_now.threshold * factor * x * root * q)
        grown.append(sizes[-1] / sizes[SETTLE_STEPS])
    assert grown[0] < 1 < grown[1]


# --- closed forms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("shrink", [0.0, 0.001])
def test_the_common_threshold_contains_the_two_of_the_family(beta, shrink):
    ball = {"lr": 0.1, "beta": beta, "gradient_weight": 0.0, "momentum_weight": 1.0}
    expected = momentum_threshold(0.1, beta=beta, shrink=shrink)
    assert MomentumUpdate(1.0, **ball, decoupled=shrink / 0.1).threshold() == pytest.approx(
        expected, rel=1e-12
    )
    assert MomentumUpdate(1.0, **ball, coupled=shrink / 0.1).threshold() == pytest.approx(expected, rel=1e-12)
    nesterov = MomentumUpdate(1.0, 0.1, beta, 1.0, beta, coupled=shrink / 0.1)
    assert nesterov.threshold() == pytest.approx(nesterov_threshold(0.1, beta=beta, shrink=shrink), rel=1e-12)


def test_who_stands_still_is_always_stable():
    where = space()
    assert look(SGD(where.tensors, lr=0.0), where).threshold == math.inf
    assert look(Adam(where.tensors, lr=0.0), where).threshold == math.inf


# --- variants ---------------------------------------------------------------------------------------------


def after_steps(kind: type[Optimizer], count: int = 7, dtype=torch.float64, **values: Any) -> Geometry:
    where = space(dtype=dtype)
    optimizer = kind(where.tensors, **values)
    for gradient in gradients(where.dim, count, seed=6):
        step(optimizer, where, gradient)
    return look(optimizer, where, next(gradients(where.dim, 1, seed=7)))


def same(a: Geometry, b: Geometry, rel: float = 1e-6) -> bool:
    x, y = a.metric.power(1).dense(), b.metric.power(1).dense()
    close = torch.allclose(x, y, rtol=rel, atol=0)
    return close and a.threshold == pytest.approx(b.threshold, rel=rel) and a.decay.coupled == b.decay.coupled


ALL = [SGD, ASGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad, Adadelta]


@pytest.mark.parametrize("kind", ALL)
def test_foreach_gives_the_same_geometry(kind):
    plain = after_steps(kind, lr=0.1, weight_decay=0.01, foreach=False)
    assert same(plain, after_steps(kind, lr=0.1, weight_decay=0.01, foreach=True), rel=1e-7)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, Adagrad])
def test_fused_gives_the_same_geometry(kind):
    plain = after_steps(kind, dtype=torch.float32, lr=0.1, weight_decay=0.01)
    assert same(plain, after_steps(kind, dtype=torch.float32, lr=0.1, weight_decay=0.01, fused=True))


@pytest.mark.parametrize("kind", [ASGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adadelta])
def test_capturable_gives_the_same_geometry(kind, monkeypatch):
    """torch asks for a GPU; that its arithmetic is the same is seen on the CPU as well."""
    module = importlib.import_module(kind.__module__ if kind is not AdamW else Adam.__module__)
    monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda *_, **__: ["cpu"])
    plain = after_steps(kind, lr=0.1, weight_decay=0.01)
    assert same(plain, after_steps(kind, lr=0.1, weight_decay=0.01, capturable=True, foreach=False))


def test_numbers_may_be_tensors():
    plain = after_steps(Adam, lr=0.1)
    assert same(plain, after_steps(Adam, lr=torch.tensor(0.1)))
    betas = torch.tensor(0.9), torch.tensor(0.999)
    assert same(plain, after_steps(Adam, lr=torch.tensor(0.1), betas=betas, foreach=False), rel=1e-5)


def test_amsgrad_does_not_forget_a_large_gradient():
    where = space()
    plain, maximal = (Adam(where.tensors, betas=(0.9, 0.5), amsgrad=ams) for ams in (False, True))
    for size in (100.0, 1.0, 1.0, 1.0, 1.0):
        for optimizer in (plain, maximal):
            step(optimizer, where, size * torch.ones(where.dim))
    a, b = (look(o, where).metric.diagonal for o in (plain, maximal))
    second = 1 - 0.5**6
    assert torch.allclose(b, (1 - 0.9**6) * torch.tensor(0.5 * 1e4 / second).sqrt().double().expand(17))
    assert float((b / a).min()) > 3


def test_epsilon_stands_inside_the_root_or_outside():
    gradient = torch.full((17,), 3.0)
    where = space()
    outside, inside = (
        RMSprop(where.tensors, alpha=0.5, eps=0.25),
        RMSpropTF(where.tensors, alpha=0.5, eps=0.25),
    )
    a, b = (look(o, where, gradient).metric.diagonal for o in (outside, inside))
    assert torch.allclose(a, torch.tensor(4.5).sqrt().double() + 0.25)  # v = 0.5 · 9, from zero
    assert torch.allclose(b, torch.tensor(0.5 + 4.5 + 0.25).sqrt().double())  # from one


# --- groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SGD, RMSprop])
def test_groups_with_their_own_learning_rates_are_sharp_too(kind):
    for factor in (0.995, 1.005):
        where = space()
        rates = [{"params": [w], "lr": lr} for w, lr in zip(where.tensors, (0.1, 0.02), strict=True)]
        optimizer = kind(rates)
        for gradient in gradients(where.dim, 30, seed=1):
            step(optimizer, where, gradient)
        for values in optimizer.param_groups if kind is RMSprop else ():
            values["alpha"] = 1.0
        geometry_now = look(optimizer, where, torch.zeros(where.dim))
        assert geometry_now.threshold == pytest.approx(20.0)
        root = geometry_now.metric.power(0.5).dense().diagonal()
        q = next(gradients(where.dim, 1, seed=8))
        q /= q.norm()
        where.assign(1e-9 * q / root)
        sizes = []
        for _ in range(OSCILLATION):
            x = q @ (root * where.weights())
            sizes.append(abs(float(x)))
            step(optimizer, where, geometry_now.threshold * factor * x * root * q)
        assert (sizes[-1] > sizes[0]) == (factor > 1)


def test_a_group_that_stands_still_does_not_matter():
    where = space()
    optimizer = SGD([{"params": [w], "lr": lr} for w, lr in zip(where.tensors, (0.1, 0.0), strict=True)])
    geometry_now = look(optimizer, where)
    inverse = geometry_now.metric.power(-1).dense().diagonal()
    assert geometry_now.threshold == pytest.approx(20.0)
    assert (inverse[:12] == 1).all() and float(inverse[12:].max()) < 1e-12


def test_only_what_is_trained_has_a_metric():
    where = space()
    optimizer = SGD([*where.tensors, torch.zeros(3)], lr=0.1)
    assert look(optimizer, where).metric.dim == where.dim


# --- looking ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*CASES, *STEPS[-6:]], ids=str)
def test_looking_changes_nothing(case):
    watched, alone = (space() for _ in range(2))
    a, b = case.kind(watched.tensors, **case.values), case.kind(alone.tensors, **case.values)
    for gradient in gradients(watched.dim, 5, seed=9):
        lend(watched, gradient)
        geometry(a)
        assert torch.equal(watched.gradient(), gradient)
        assert torch.equal(step(a, watched, gradient), step(b, alone, gradient))


def test_hooks_and_schedulers_do_not_hear_of_the_rehearsal():
    where, heard = space(), []
    optimizer = Adam(where.tensors, lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.register_step_pre_hook(lambda *_: heard.append("before"))
    optimizer.register_step_post_hook(lambda *_: heard.append("after"))
    step(optimizer, where, torch.ones(where.dim))
    scheduler.step()
    assert look(optimizer, where).threshold == pytest.approx(38 / 0.05)
    assert heard == ["before", "after"]


def test_parameters_of_modules_keep_their_gradients():
    layer = nn.Linear(3, 2)
    optimizer = Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    geometry_now = geometry(optimizer)
    expected = torch.cat([p.grad.reshape(-1).abs() for p in layer.parameters()]) * (1 - 0.9) + 1e-9
    assert torch.allclose(geometry_now.metric.diagonal, expected)


def test_an_adaptive_metric_needs_a_gradient_and_a_plain_one_does_not():
    where = space()
    with pytest.raises(
        ValueError, match=r"metric of Adam's next step depends on the gradient; call loss\.back"
    ):
        geometry(Adam(where.tensors))
    assert isinstance(geometry(SGD(where.tensors, lr=0.1)).metric, ScalarMetric)


# --- what is not known ------------------------------------------------------------------------------------


class Inherits(Adam):
    """Its own name, another's step."""


class Overrides(Adam):
    def step(self, closure=None):
        return super().step(closure)


class Wraps(Optimizer):
    """May do anything with the optimizer that it holds, as Lookahead does."""

    def __init__(self, base_optimizer):
        self.base_optimizer = base_optimizer
        super().__init__(base_optimizer.param_groups, {})


UNKNOWN = [
    (lambda w: Muon([w]), "Muon has none, for it orthogonalises its momentum"),
    (lambda w: timm.optim.create_optimizer_v2([w], "muon"), "Muon has none, for it orthogonalises"),
    (lambda w: Lion([w]), "Lion has none, for it uses only the sign"),
    (lambda w: Rprop([w]), "Rprop has none, for it uses only the sign"),
    (lambda w: LBFGS([w]), "LBFGS has none, for it evaluates the loss several times"),
    (lambda w: Adafactor([w]), "Adafactor declares none"),
    (lambda w: Overrides([w]), "Overrides has a step of its own, which may not be that of Adam"),
    (
        lambda w: Wraps(SGD([w])),
        "Wraps wraps SGD and may change its step; if it does not, give the SGD itself",
    ),
    (lambda w: Adam([w], maximize=True), "Adam with maximize has none, for it maximises the loss"),
    (lambda w: Lamb([w], caution=True), "Lamb with caution has none, for it skips"),
]


@pytest.mark.parametrize(("make", "says"), UNKNOWN, ids=[says.split()[0] for _, says in UNKNOWN])
def test_an_unknown_metric_says_why_and_the_plain_views_do_without(make, says):
    w = torch.ones(3, 2, requires_grad=True)
    w.grad = torch.ones(3, 2)
    optimizer = make(w)
    geometry_now = geometry(optimizer)
    assert why_unknown(optimizer).startswith(says)
    assert isinstance(geometry_now.metric, UnknownMetric) and geometry_now.metric.dim == 6
    for view in ("raw", "spherical", "riemannian"):
        assert view_threshold(VIEWS[view], geometry_now) is None
    with pytest.raises(ValueError, match=f"there is no metric: {says}.*; measure raw or spherical instead"):
        view_operator(VIEWS["preconditioned"], geometry_now.metric.power(1), torch.ones(6), geometry_now)


def test_measure_warns_of_a_missing_threshold():
    model, chunks = torch.nn.Linear(2, 1), [(torch.ones(3, 2), torch.ones(3, 1))]
    loss = torch.nn.functional.mse_loss
    with pytest.warns(UserWarning, match="no threshold: there is no metric: Lion has none"):
        measure(model, loss, chunks, Lion(model.parameters()), views=("raw",))


def test_who_inherits_a_step_inherits_its_geometry():
    where = space()
    mine, theirs = (look(kind(where.tensors), where) for kind in (Inherits, Adam))
    assert same(mine, theirs, rel=0.0)
    step(Inherits(where.tensors), where, torch.ones(where.dim))  # torch wraps the step of the class now
    assert why_unknown(Inherits(where.tensors)) is None
