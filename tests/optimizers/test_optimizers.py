"""Each optimizer against an independent one, and the closed forms V1, V2, V4 and V8."""

import json
import math

import pytest
import torch

from optim_family.optimizers.adamw import AdamW
from optim_family.optimizers.gd import GD
from optim_family.optimizers.rmsprop import RMSprop
from optim_family.optimizers.sgd import SGD


def steps(optimizer, w, gradients):
    for g in gradients:
        w.grad = g.clone()
        optimizer.step()
    return w.detach().clone()


def pair(seed=0):
    w = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return w.clone().requires_grad_(), w.clone().requires_grad_()


GRADIENTS = list(torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(9)))


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_torchs(momentum, nesterov):
    ours, theirs = pair()
    settings = {"lr": 0.03, "weight_decay": 0.1, "momentum": momentum, "nesterov": nesterov}
    a = steps(SGD([ours], **settings), ours, GRADIENTS)
    b = steps(torch.optim.SGD([theirs], **settings), theirs, GRADIENTS)
    torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_adamw_is_torchs():
    ours, theirs = pair()
    a = steps(AdamW([ours], lr=0.03, weight_decay=0.1), ours, GRADIENTS)
    b = steps(torch.optim.AdamW([theirs], lr=0.03, weight_decay=0.1), theirs, GRADIENTS)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_rmsprop_with_the_identity_as_metric_is_gradient_descent():
    # β₂ = 0 and one tensor of one weight per step: P = |ĝ| + ε; with ε → ∞ and η = ε η₀ the step is η₀ g.
    ours, theirs = pair()
    a = steps(RMSprop([ours], lr=0.03 * 1e12, eps=1e12, weight_decay=0.1 / 1e12), ours, GRADIENTS)
    b = steps(GD([theirs], lr=0.03, weight_decay=0.1), theirs, GRADIENTS)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def norms(optimizer_class):
    """Per tensor, the two norms that `update` sees, while it moves the tensors."""

    class Seeing(optimizer_class):
        seen = ()

        def update(self, w, grad, state, h):
            super().update(w, grad, state, h)
            self.seen = (*self.seen, (float(self.rho), float(self.gradient_norm)))

    optimizer = Seeing(
        [torch.tensor([3.0], requires_grad=True), torch.tensor([4.0], requires_grad=True)], lr=0.1
    )
    for w, g in zip(optimizer.weights, (5.0, 12.0), strict=True):
        w.grad = torch.tensor([g])
    optimizer.step()
    return optimizer.seen


def test_norms_are_those_before_any_tensor_moves():
    assert norms(RMSprop) == ((5.0, 13.0), (5.0, 13.0))


@pytest.mark.parametrize("optimizer_class", [GD, SGD, AdamW])
def test_norms_that_an_optimizer_says_it_does_not_need_do_not_exist(optimizer_class):
    with pytest.raises(AttributeError, match="rho"):
        norms(optimizer_class)


def loss(w):
    """Scale-invariant and not quadratic: the Rayleigh quotient and its square."""
    a = torch.linspace(0.1, 1, len(w), dtype=w.dtype)
    quotient = (a * w * w).sum() / (w * w).sum()
    return quotient + quotient**2


def gradient(w):
    w = w.detach().requires_grad_()
    return torch.autograd.grad(loss(w), w)[0]


def test_v1_gradient_descent_with_decay_is_projected_gradient_descent_on_the_sphere():
    eta, lam = 0.3, 0.05
    w, _ = pair()
    rho, theta = w.detach().norm(), w.detach() / w.detach().norm()
    ell = eta / ((1 - eta * lam) * rho**2)
    expected = theta - ell * gradient(theta)
    after = steps(GD([w], lr=eta, weight_decay=lam), w, [gradient(w)])
    torch.testing.assert_close(after / after.norm(), expected / expected.norm(), rtol=0, atol=1e-12)


def test_v2_the_effective_learning_rate_is_a_quasi_rmsprop_schedule():
    eta, lam = 0.3, 0.05
    w, _ = pair()
    optimizer = GD([w], lr=eta, weight_decay=lam)
    beta = (1 - eta * lam) ** 4
    b2 = (1 / beta - 1) / 2
    v = None
    for _ in range(300):
        rho = float(w.detach().norm())
        ell = eta / ((1 - eta * lam) * rho**2)
        now = b2 / ell**2
        if v is not None:
            assert now == pytest.approx(v, rel=1e-10)
        square = float((rho * gradient(w)).square().sum())  # ‖∇L(θ)‖²
        v = beta * now + (1 - beta) * square * (1 + ell**2 * square / 2)
        steps(optimizer, w, [gradient(w)])


@pytest.mark.parametrize(
    ("make", "eta_power", "lambda_power"),
    [
        (lambda w, **h: GD([w], **h), 2, -2),
        (lambda w, **h: RMSprop([w], eps=1e-3, **h), 2, -2),
        (lambda w, **h: RMSprop([w], eps=1e-3, moment="scalar", **h), 2, -2),
        (lambda w, **h: RMSprop([w], eps=1e-3, norm="tensor", **h), 2, -2),
        (lambda w, **h: RMSprop([w], eps=0.0, preconditioning="raw", **h), 1, -1),
    ],
    ids=["gd", "rmsprop", "rmsprop-scalar", "rmsprop-tensor", "rmsprop-raw"],
)
def test_v4_rescaling_leaves_the_path_of_directions(make, eta_power, lambda_power):
    c, eta, lam = 3.0, 0.01, 0.05
    w, u = pair()
    with torch.no_grad():
        u.mul_(c)
    first = make(w, lr=eta, weight_decay=lam)
    second = make(u, lr=eta * c**eta_power, weight_decay=lam * c**lambda_power)
    for _ in range(300):
        a, b = steps(first, w, [gradient(w)]), steps(second, u, [gradient(u)])
        torch.testing.assert_close(a / a.norm(), b / b.norm(), rtol=0, atol=1e-10)


def test_v4_fails_for_raw_rmsprop_with_the_exponents_of_the_scale_invariant_one():
    w, u = pair()
    with torch.no_grad():
        u.mul_(3)
    first = RMSprop([w], lr=0.01, weight_decay=0.05, preconditioning="raw")
    second = RMSprop([u], lr=0.09, weight_decay=0.05 / 9, preconditioning="raw")
    for _ in range(20):
        a, b = steps(first, w, [gradient(w)]), steps(second, u, [gradient(u)])
    assert float((a / a.norm() - b / b.norm()).norm()) > 1e-3


@pytest.mark.parametrize("h", [0.5, 1.0, 7.0, 100.0])
def test_v8_raw_rmsprop_ends_in_a_period_two_orbit_at_its_threshold(h):
    eta = 0.01
    w = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    optimizer = RMSprop([w], lr=eta, weight_decay=0.0, beta2=0.99, eps=1e-300, preconditioning="raw")
    for _ in range(6000):
        before = steps(optimizer, w, [h * w.detach()])
    after = steps(optimizer, w, [h * w.detach()])
    assert after.item() == pytest.approx(-before.item(), rel=1e-3)
    assert abs(after.item()) == pytest.approx(eta / 2, rel=1e-3)
    assert eta * h / math.sqrt(optimizer.state[w]["v"].item()) == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("optimizer", [GD, SGD, RMSprop, AdamW])
def test_state_dict_holds_tensors_and_plain_numbers_only(optimizer):
    w, _ = pair()
    made = optimizer([w], lr=0.1)
    steps(made, w, GRADIENTS[:3])
    state = made.state_dict()
    plain = {k: v for entry in state["state"].values() for k, v in entry.items() if not torch.is_tensor(v)}
    json.dumps([plain, state["param_groups"]])
    assert state["param_groups"][0]["lr"] == 0.1


@pytest.mark.parametrize("optimizer", [RMSprop, AdamW])
def test_a_metric_that_needs_a_gradient_says_so(optimizer):
    w, _ = pair()
    with pytest.raises(ValueError, match="before geometry"):
        optimizer([w]).geometry()


def test_hyper_parameters_are_checked():
    w, _ = pair()
    with pytest.raises(ValueError, match=r"^lr: it must be greater than 0, not -1$"):
        GD([w], lr=-1)
    with pytest.raises(ValueError, match=r"^there is no hyper-parameter 'lrr'; did you mean 'lr'[^\n]*$"):
        GD([w], lrr=1)
    with pytest.raises(ValueError, match=r"^lr: [^\n]*; there is no hyper-parameter 'beta'[^\n]*$"):
        RMSprop([w], lr=0, beta=0.9)
    with pytest.raises(ValueError, match=r"^lr · weight_decay is the fraction of the weights removed[^\n]*$"):
        GD([w], lr=10, weight_decay=0.1)
    with pytest.raises(ValueError, match=r"^nesterov needs a momentum[^\n]*$"):
        SGD([w], nesterov=True)
    with pytest.raises(ValueError, match="not both"):
        GD([w], GD.Hyper(), lr=0.1)


def test_a_closure_is_evaluated_with_gradients():
    w, _ = pair()

    def closure():
        w.grad = None
        value = loss(w)
        value.backward()
        return value

    before = loss(w).item()
    assert GD([w], lr=0.1).step(closure).item() == before
    assert loss(w).item() < before


def test_flat_joins_the_state_in_the_order_of_the_weights():
    a, b = torch.ones(2, 2, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = RMSprop([a, b], moment="scalar", norm="tensor", lr=0.1)
    with pytest.raises(ValueError, match="has no state 'v'"):
        optimizer.flat("v")
    a.grad, b.grad = torch.full((2, 2), 0.5), torch.ones(3)
    optimizer.step()
    assert optimizer.flat("v").tolist() == pytest.approx(
        [4.0] * 4 + [9.0] * 3
    )  # (‖w‖‖g‖)² = (2·1)², (√3·√3)²
