"""Factors against their closed forms, and the two that stand for something else against that."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from optim_family.errors import UsageError
from optim_family.optimizers.gd import GD
from optim_family.optimizers.rmsprop import RMSprop
from optim_family.training.lr_scheduler import TORCH, Scheduler, parse
from optim_family.training.lr_schedules import ScheduleContext


def factors(text, steps, count, lr=0.5):
    """The factor at each step, for weights of norm 2."""
    (schedule,) = parse(text)
    return [schedule.factor(ScheduleContext(t, steps, lr, 0.0, 2.0, lambda: 2.0)) for t in range(count)]


def weights(seed=0):
    return torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def gradient(w):
    """Of a Rayleigh quotient and its square: scale-invariant, and not quadratic."""
    w = w.detach().requires_grad_()
    a = torch.linspace(0.1, 1, len(w), dtype=w.dtype)
    quotient = (a * w * w).sum() / (w * w).sum()
    return torch.autograd.grad(quotient + quotient**2, w)[0]


# --- closed forms -----------------------------------------------------------------------------------------


def test_warm_up_is_linear_to_one():
    assert factors("warmup:steps=4", 9, 6) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_cosine_falls_from_one_to_its_end():
    assert factors("cosine", 4, 5) == pytest.approx(
        [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0]
    )
    assert factors("cosine:to=0.2", 2, 3) == pytest.approx([1, 0.6, 0.2])


def test_step_drops():
    assert factors("step:every=2:by=0.5", 9, 5) == [1, 1, 0.5, 0.5, 0.25]
    assert factors("step:every=1", 9, 2) == pytest.approx([1, 0.1])


def test_growth_is_exponential():
    assert factors("growth:decay=0.2", 9, 3) == pytest.approx([0.9**-1, 0.9**-3, 0.9**-5], rel=1e-14)


def test_factors_are_multiplied_and_groups_keep_their_shares():
    w, u = weights(), weights(1)
    optimizer = torch.optim.SGD([{"params": [w], "lr": 0.4}, {"params": [u], "lr": 0.1}])
    scheduler = Scheduler("warmup:steps=4 + step:every=1:by=0.5", optimizer, 10)
    assert scheduler(2) == pytest.approx(0.4 * 0.75 * 0.25)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.1 * 0.75 * 0.25)


# --- the two that stand for something else ----------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda w, **h: GD([w], **h), lambda w, **h: RMSprop([w], **h)], ids=["gd", "rmsprop"]
)
def test_exponential_growth_moves_the_direction_as_weight_decay_does(make):
    w, u = weights(), weights()
    decayed, grown = make(w, lr=0.02, weight_decay=0.4), make(u, lr=0.02, weight_decay=0.0)
    scheduler = Scheduler("growth:decay=0.4", grown, 300)
    for t in range(300):
        scheduler(t)
        for x, optimizer in ((w, decayed), (u, grown)):
            x.grad = gradient(x)
            optimizer.step()
        a, b = w.detach(), u.detach()
        torch.testing.assert_close(a / a.norm(), b / b.norm(), rtol=0, atol=1e-10)
    assert float(b.norm() / a.norm()) == pytest.approx((1 - 0.02 * 0.4) ** -300, rel=1e-8)


def test_growth_and_weight_decay_together_are_refused():
    with pytest.raises(UsageError, match="growth replaces weight decay; set --weight-decay 0"):
        Scheduler("growth:decay=0.1", GD([weights()], weight_decay=0.1), 10)


def test_the_effective_learning_rate_is_held():
    w = weights()
    optimizer = GD([w], lr=0.3, weight_decay=0.2)
    scheduler, seen, rates = Scheduler("effective", optimizer, 100), [], []
    for t in range(100):
        eta = scheduler(t)
        rates.append(eta)
        seen.append(eta / ((1 - eta * 0.2) * float(w.detach().square().sum())))
        w.grad = gradient(w)
        optimizer.step()
    assert rates[0] == pytest.approx(0.3, rel=1e-14)
    assert seen == pytest.approx([seen[0]] * 100, rel=1e-12)
    assert min(rates) < 0.2


# --- torch's ----------------------------------------------------------------------------------------------

TORCHS = {
    "ConstantLR": ":factor=0.5:total_iters=3",
    "CosineAnnealingLR": ":T_max=7:eta_min=0.01",
    "CosineAnnealingWarmRestarts": ":T_0=3",
    "CyclicLR": ":base_lr=0.1:max_lr=1:step_size_up=2:cycle_momentum=false",
    "ExponentialLR": ":gamma=0.9",
    "LinearLR": "",
    "MultiStepLR": ":milestones=[2,5]",
    "OneCycleLR": ":max_lr=2:total_steps=20:cycle_momentum=false",
    "PolynomialLR": ":total_iters=4:power=2",
    "StepLR": ":step_size=2",
}


@pytest.mark.parametrize("name", TORCH)
def test_a_scheduler_of_torch_gives_its_own_rates(name):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    words = dict(word.split("=") for word in TORCHS[name].split(":") if word)
    values = {key: eval(value.replace("false", "False")) for key, value in words.items()}
    theirs, expected = getattr(lr_scheduler, name)(optimizer, **values), []
    for _ in range(9):
        expected.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        theirs.step()
    text = f"torch:{name}{TORCHS[name]}"
    assert factors(text, 9, 9) == pytest.approx(expected, rel=1e-14)
    assert len(set(expected)) > 1


def test_a_resumed_run_is_given_the_same_rate():
    (straight,), (resumed,) = (parse("torch:ExponentialLR:gamma=0.9") for _ in range(2))
    rates = [straight.factor(ScheduleContext(t, 9, 0.5, 0.0, 1.0, lambda: 1.0)) for t in range(8)]
    assert resumed.factor(ScheduleContext(7, 9, 0.5, 0.0, 1.0, lambda: 1.0)) == rates[7]
    assert resumed.factor(ScheduleContext(3, 9, 0.5, 0.0, 1.0, lambda: 1.0)) == rates[3]


# --- thresholds -------------------------------------------------------------------------------------------


def test_the_threshold_follows_the_schedule():
    optimizer = GD([weights()], lr=0.5, weight_decay=0.0)
    scheduler = Scheduler("step:every=3:by=0.1", optimizer, 10)
    thresholds = []
    for t in (0, 2, 3):
        scheduler(t)
        thresholds.append(optimizer.geometry().threshold)
    assert thresholds == pytest.approx([4.0, 4.0, 40.0])


# --- mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("warmpu:steps=3", "no schedule 'warmpu'; did you mean 'warmup'"),
        ("warmup", "schedule 'warmup': steps: field required"),
        ("warmup:steps=0", "schedule 'warmup:steps=0': steps: it must be greater than or equal to 1"),
        ("cosine+step:evry=3", "schedule 'step:evry=3': there is no parameter 'evry'; did you mean 'every'"),
        ("torch:ExponentialLr", "no schedule 'torch:ExponentialLr'; did you mean 'torch:ExponentialLR'"),
        ("torch:ReduceLROnPlateau", "no schedule 'torch:ReduceLROnPlateau'"),
        ("torch:StepLR", "torch:StepLR: .*missing 1 required positional argument: 'step_size'"),
        ("torch:OneCycleLR:max_lr=1:total_steps=9", "changes the momentum too; add :cycle_momentum=false"),
        ("", "no schedule ''"),
        (
            "torch:CosineAnnealingLR:T_max=7",
            "multiplies the learning rate by 0 at step 7; it must stay",
        ),
        ("growth:decay=1.999999", "by inf at step "),
        ("warmup:steps=3:steps=4", "schedule 'warmup:steps=3:steps=4' gives a parameter twice"),
        ("torch:StepLR:step_size=0", "torch:StepLR: integer .*modulo by zero"),
        ("torch:StepLR:step_size=often", "torch:StepLR: unsupported operand"),
        ("torch:StepLR:step_size=3:last_epoch=5", "torch:StepLR: .*param 'initial_lr' is not specified"),
        ("torch:ExponentialLR:gamma=0.9:name=3", "torch:ExponentialLR: .*unexpected keyword argument 'name'"),
        ("torch:ExponentialLR:gamma=-1", "by -1 at step 1; it must stay above 0"),
    ],
)
def test_a_wrong_text_says_what_is_wrong(text, says):
    with pytest.raises(UsageError, match=says):
        Scheduler(text, GD([weights()], lr=0.5, weight_decay=0.0), 60)
