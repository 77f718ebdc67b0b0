"""The update rules of external optimizers, from the state after the next step.

The bias correction of the momentum is part of the metric P, as in AdamW.

Source: the code of torch.optim and timm.optim, which cites the papers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from optim_family.optimizers.motion import MomentumUpdate

State = Mapping[str, Any]


@final
@dataclass(frozen=True)
class ParameterStep:
    """One tensor and its next step: the input of an update rule.

    Attributes:
        w: the tensor, before the step.
        before: its state before the step; empty before the first.
        after: its state after the step.
        group: the hyper-parameters in force.
        gradient_norm: that of all tensors together; only of an optimizer in `LENGTHS`, as the next two.
        square: Σ w².
        lengths: those of its entry in `LENGTHS`.
    """

    w: Tensor
    before: State
    after: State
    group: State
    gradient_norm: float = math.nan
    square: float | None = None
    lengths: tuple[float, ...] = ()

    @property
    def count(self) -> float:
        """t, the number of the step: 1 for the first."""
        return float(
            self.after["step"] if "step" in self.after else self.group.get("step", self.group.get("k"))
        )


def _momentum(t: ParameterStep) -> dict[str, Any]:
    """β, a, b of m ← β m + (1 − dampening) g, without or with Nesterov's g + β m."""
    beta, weight = t.group["momentum"], 1 - t.group.get("dampening", 0.0)
    if not beta:
        return {}
    if t.group.get("nesterov"):
        return {"beta": beta, "momentum_weight": beta * weight}
    return {"beta": beta, "gradient_weight": 0.0, "momentum_weight": weight}


def _sgd(t: ParameterStep) -> MomentumUpdate:
    return MomentumUpdate(1.0, t.group["lr"], **_momentum(t), **_decay(t))


def _asgd(t: ParameterStep) -> MomentumUpdate:
    eta = float(t.before.get("eta", t.group["lr"]))
    return MomentumUpdate(1.0, eta, decoupled=t.group["lambd"], coupled=t.group["weight_decay"])


def _adam(t: ParameterStep) -> MomentumUpdate:
    """P = (1 − β₁ᵗ)(√(v / (1 − β₂ᵗ)) + ε)."""
    v = t.after["max_exp_avg_sq" if t.group["amsgrad"] else "exp_avg_sq"]
    first, second = _corrections(t)
    return _adam_update(t, first * ((v / second).sqrt() + t.group["eps"]))


def _radam(t: ParameterStep) -> MomentumUpdate:
    """P = (1 − β₁ᵗ)(√v + ε) / (r √(1 − β₂ᵗ)); (1 − β₁ᵗ) I until v has seen enough gradients."""
    beta2, (first, second) = t.group["betas"][1], _corrections(t)
    most = 2 / (1 - beta2) - 1
    length = most - 2 * t.count * beta2**t.count / second
    if length <= 5:
        return _adam_update(t, first)
    rectified = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
    return _adam_update(
        t, (t.after["exp_avg_sq"].sqrt() + t.group["eps"]) * first / math.sqrt(rectified * second)
    )


def _adamax(t: ParameterStep) -> MomentumUpdate:
    """P = (1 − β₁ᵗ) u, where u ← max(β₂ u, |g| + ε)."""
    return _adam_update(t, _corrections(t)[0] * t.after["exp_inf"])


def _nadam(t: ParameterStep) -> MomentumUpdate:
    """P = √(v / (1 − β₂ᵗ)) + ε, and a g + b m with the momentum's own schedule μ."""
    beta1, product = t.group["betas"][0], float(t.after["mu_product"])
    mu, following = (
        beta1 * (1 - 0.5 * 0.96 ** (step * t.group["momentum_decay"])) for step in (t.count, t.count + 1)
    )
    metric = (t.after["exp_avg_sq"] / _corrections(t)[1]).sqrt() + t.group["eps"]
    a, b = (1 - mu) / (1 - product), following * (1 - beta1) / (1 - product * following)
    return MomentumUpdate(metric, t.group["lr"], beta1, a, b, **_decay(t))


def _rmsprop(t: ParameterStep) -> MomentumUpdate:
    """P = √v + ε; v is the variance if it is centred."""
    return MomentumUpdate(_variance(t).sqrt() + t.group["eps"], t.group["lr"], **_momentum(t), **_decay(t))


def _rmsprop_tf(t: ParameterStep) -> MomentumUpdate:
    """P = √(v + ε)."""
    return MomentumUpdate((_variance(t) + t.group["eps"]).sqrt(), t.group["lr"], **_momentum(t), **_decay(t))


def _variance(t: ParameterStep) -> Tensor:
    v: Tensor = t.after["square_avg"]
    return v.addcmul(t.after["grad_avg"], t.after["grad_avg"], value=-1) if t.group["centered"] else v


def _adagrad(t: ParameterStep) -> MomentumUpdate:
    """P = √Σg² + ε."""
    lr = t.group["lr"] / (1 + (t.count - 1) * t.group["lr_decay"])
    return MomentumUpdate(t.after["sum"].sqrt() + t.group["eps"], lr, **_decay(t))


def _adadelta(t: ParameterStep) -> MomentumUpdate:
    """P = √(v + ε) / √(x + ε), with the average x of squared steps as it was before this one."""
    eps, steps = t.group["eps"], t.before.get("acc_delta", torch.zeros_like(t.w))
    return MomentumUpdate(((t.after["square_avg"] + eps) / (steps + eps)).sqrt(), t.group["lr"], **_decay(t))


def _lamb(t: ParameterStep) -> MomentumUpdate:
    """P = Adam's, times the clipping of the gradient, divided by the trust ratio ‖w‖ / ‖u‖ of the step u."""
    h, beta1, (first, root, outside, inside) = t.group, t.group["betas"][0], _lamb_parts(t)
    w_norm, step_norm = t.lengths
    trust = 1.0
    if (h["weight_decay"] or h["always_adapt"]) and w_norm and step_norm:
        trust = min(w_norm / step_norm, 1.0 if h["trust_clip"] else math.inf)
    clip = max(1.0, t.gradient_norm / h["max_grad_norm"]) if h["max_grad_norm"] else 1.0
    weight = 1 - beta1 if h["grad_averaging"] else 1.0
    metric = root * (first * clip / trust)
    return MomentumUpdate(metric, h["lr"], beta1, 0.0, weight, decoupled=outside + trust * inside)


def _lamb_lengths(t: ParameterStep) -> list[Tensor]:
    """‖w‖ after the decoupled decay, and ‖u‖."""
    first, root, outside, inside = _lamb_parts(t)
    step = t.after["exp_avg"] / (first * root) + inside * t.w
    return [torch.linalg.vector_norm(x) for x in ((1 - t.group["lr"] * outside) * t.w, step)]


def _lamb_parts(t: ParameterStep) -> tuple[float, Tensor, float, float]:
    """The correction of m, √v + ε, and λ of a decay outside or inside of u."""
    h, (beta1, beta2), count = t.group, t.group["betas"], float(t.group["step"])
    first, second = (1 - beta1**count, 1 - beta2**count) if h["bias_correction"] else (1.0, 1.0)
    root = (t.after["exp_avg_sq"] / second).sqrt() + h["eps"]
    return first, root, *((_decoupled(t), 0.0) if h["decoupled_decay"] else (0.0, h["weight_decay"]))


def _schedule_free(t: ParameterStep, metric: Tensor | float, beta: float) -> MomentumUpdate:
    """The path of y for a constant weight c of the newest z in the average x: a = 1 − β, b = cβ, β' = 1 − c.

    With z ← z − η (P⁻¹ g(y) + λ y), x ← (1 − c) x + c z and y = (1 − β) z + β x the characteristic polynomial
    in u is (u − 1)(u − 1 + c) + η (h + λ) ((1 − β)(u − 1 + c) + c β u).
    """
    h, lr = t.group, float(t.group["lr"])
    if warmup := h["warmup_steps"]:
        lr *= min(1.0, t.count / warmup)
    weight = t.count ** h["r"] * h["lr_max"] ** h["weight_lr_power"]
    c = weight / h["weight_sum"] if h["weight_sum"] else 0.0
    if h.get("decoupling_c"):
        c = min(1.0, c * (1 - beta) * h["decoupling_c"])
    return MomentumUpdate(
        metric, lr, 1 - c, 1 - beta, c * beta, coupled=h["weight_decay"], beside_metric=True
    )


def _schedule_free_sgd(t: ParameterStep) -> MomentumUpdate:
    """P = I."""
    return _schedule_free(t, 1.0, t.group["momentum"])


def _schedule_free_adamw(t: ParameterStep) -> MomentumUpdate:
    """P = √(v / (1 − β₂ᵗ)) + ε."""
    root = (t.after["exp_avg_sq"] / _corrections(t)[1]).sqrt()
    return _schedule_free(t, root + t.group["eps"], t.group["betas"][0])


def _adam_update(t: ParameterStep, metric: Tensor | float) -> MomentumUpdate:
    """The momentum of Adam and its variants, m ← β₁ m + (1 − β₁) g."""
    beta1 = t.group["betas"][0]
    return MomentumUpdate(metric, t.group["lr"], beta1, 0.0, 1 - beta1, **_decay(t))


def _corrections(t: ParameterStep) -> tuple[float, float]:
    """(1 − β₁ᵗ, 1 − β₂ᵗ)."""
    beta1, beta2 = t.group["betas"]
    return 1 - beta1**t.count, 1 - beta2**t.count


def _decay(t: ParameterStep) -> dict[str, Any]:
    names = "decoupled_weight_decay", "decoupled_decay", "weight_decouple"
    decoupled = any(t.group.get(name) for name in names)
    return {"decoupled": _decoupled(t)} if decoupled else {"coupled": t.group["weight_decay"]}


def _decoupled(t: ParameterStep) -> float:
    """λ; times η / max η with timm's corrected decay, 1 / η with a decay that does not depend on η."""
    if t.group.get("fixed_decay"):
        return float(t.group["weight_decay"] / t.group["lr"]) if t.group["lr"] else 0.0
    correction = t.group["lr"] / t.group["max_lr_snapshot"] if t.group.get("corrected_weight_decay") else 1.0
    return float(t.group["weight_decay"] * correction)


# Keys are package and class that defines the step, as text: neither package needs to be imported.
UPDATE_RULES: Final[Mapping[str, Callable[[ParameterStep], MomentumUpdate]]] = {
    "torch.SGD": _sgd,
    "torch.ASGD": _asgd,
    "torch.Adam": _adam,
    "torch.NAdam": _nadam,
    "torch.RAdam": _radam,
    "torch.Adamax": _adamax,
    "torch.RMSprop": _rmsprop,
    "torch.Adagrad": _adagrad,
    "torch.Adadelta": _adadelta,
    "timm.SGDW": lambda t: MomentumUpdate(1.0, t.group["lr"], **_momentum(t), decoupled=_decoupled(t)),
    "timm.RMSpropTF": _rmsprop_tf,
    "timm.Lamb": _lamb,
    "pytorch_optimizer.SGDW": _sgd,
    "pytorch_optimizer.AdaMax": _adamax,
    "pytorch_optimizer.ScheduleFreeSGD": _schedule_free_sgd,
    "pytorch_optimizer.ScheduleFreeAdamW": _schedule_free_adamw,
    "schedulefree.SGDScheduleFree": _schedule_free_sgd,
    "schedulefree.AdamWScheduleFree": _schedule_free_adamw,
}

# What a rule needs as numbers: a few for each tensor, which are read from a device all at once.
LENGTHS: Final[Mapping[str, Callable[[ParameterStep], list[Tensor]]]] = {"timm.Lamb": _lamb_lengths}

_SIGNS = "it uses only the sign of the gradient: the step has no fixed quadratic form"
_ORTHOGONAL = "it orthogonalises its momentum: the step has no fixed quadratic form"
WITHOUT_METRIC: Final[Mapping[str, str]] = {
    "torch.Muon": _ORTHOGONAL,
    "timm.Muon": _ORTHOGONAL,
    "torch.Rprop": _SIGNS,
    "timm.Lion": _SIGNS,
    "torch.LBFGS": "it evaluates the loss several times a step",
    "pytorch_optimizer.Muon": _ORTHOGONAL,
    "pytorch_optimizer.Lion": _SIGNS,
    "pytorch_optimizer.SignSGD": _SIGNS,
    "pytorch_optimizer.Tiger": _SIGNS,
    "pytorch_optimizer.SAM": "its edge is known around SGD without momentum only",
}
_TRUST = "its trust ratio ‖w‖ / ‖u‖ and its clipping of the gradient are part of P and move with every step"
_BESIDE = "its decay λy passes through the average, and P does not act on it"
# Checks of the conformance suite that a known optimizer fails.
EXPECTED_FAILURES: Final[Mapping[str, Mapping[str, str]]] = {
    "timm.Lamb": {
        "threshold_is_sharp": _TRUST,
        "metric_is_that_of_the_step": _TRUST,
        "freeze_holds_the_metric": _TRUST,
        "decay_is_as_declared": "its decay changes the trust ratio ‖w‖ / ‖u‖, and with it the whole step",
    },
    "pytorch_optimizer.ScheduleFreeAdamW": {"decay_is_as_declared": _BESIDE},
    "schedulefree.AdamWScheduleFree": {"decay_is_as_declared": _BESIDE},
}
# Options that change the step into one without an update rule here.
UNSUPPORTED_SETTINGS: Final[Mapping[str, str]] = {
    "maximize": "it maximises the loss",
    "caution": "it skips entries whose sign differs from the gradient's, and these change in every step",
    "cautious": "it skips entries whose sign differs from the gradient's, and these change in every step",
    "use_gc": "it subtracts means from the gradient",
    "adanorm": "it rescales the gradient by its past norms",
    "adam_debias": "it leaves out a bias correction",
    "ams_bound": "it takes the maximum of the second moments",
    "use_palm": "its memory of the second moment changes in every step",
}
