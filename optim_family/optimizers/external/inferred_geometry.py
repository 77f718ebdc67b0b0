"""The geometry of external optimizers: those with an update rule.

P comes from the state after the next step, which is taken on a copy: every implementation (fused, foreach,
capturable) ends in that state. Two approximations. If P is not a multiple of the identity, coupled decay acts
on some weights more than on others; λ is then its mean over the weights, λ wᵀP⁻¹w / ‖w‖². If tensors differ
in their threshold T, by group or by number of steps, the P of each is multiplied by T over the smallest T,
which is exact if only learning rates differ.
"""

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from optim_family.geometry import Decay, DiagonalMetric, Geometry, Metric, ScalarMetric, UnknownMetric
from optim_family.optimizers.external.averaging import start_training
from optim_family.optimizers.external.norm_rules import NORM_RULES
from optim_family.optimizers.external.update_rules import (
    EXPECTED_FAILURES,
    LENGTHS,
    UNSUPPORTED_SETTINGS,
    UPDATE_RULES,
    WITHOUT_METRIC,
    ParameterStep,
)
from optim_family.optimizers.motion import MomentumUpdate
from optim_family.space import flatten, trained_parameters

MAX_STRETCH = 1e20  # bound of T over the smallest T, for a tensor whose learning rate is 0
# β₂ = 1 would divide by its bias correction 0; with this β₂ the correction is 1 after FAR_STEP steps.
BETA2_FROZEN, FAR_STEP = 1 - 2.0**-52, 1e18
FROZEN_SHARE = 0.1
COUNTS: Final = {
    "step",
    "eta",
    "mu",
    "mu_product",
}  # numbers of a state that some variants keep on the device
LARGE = 1e5  # factor for a P that is a sum or a maximum, so that new gradients do not change it
# Classes of accelerate and Lightning that take the step of the optimizer in their attribute `optimizer`.
WRAPPERS: Final = ("AcceleratedOptimizer", "LightningOptimizer")


def geometry_of(optimizer: Optimizer) -> Geometry:
    """The geometry of any optimizer's next step, declared by its class or else inferred.

    Raises:
        TypeError: the class declares something else than a Geometry.
        ValueError: the metric depends on the gradient, and no tensor has a gradient.
    """
    optimizer = unwrapped_optimizer(optimizer)
    declared = getattr(optimizer, "geometry", None)
    result = geometry(optimizer) if declared is None else declared()
    if not isinstance(result, Geometry):
        raise TypeError(f"geometry() must return a Geometry; got {type(result).__name__}")
    return result


def unwrapped_optimizer(optimizer: Any) -> Optimizer:
    """The optimizer inside the wrapper of accelerate or Lightning, or the optimizer itself."""
    if any(kind.__name__ in WRAPPERS for kind in type(optimizer).__mro__):
        return unwrapped_optimizer(optimizer.optimizer)
    unwrapped: Optimizer = optimizer
    return unwrapped


def warn_about(optimizer: Optimizer, geometry: Geometry | None) -> None:
    """Warn where readings lack a threshold."""
    if geometry is not None and isinstance(geometry.metric, UnknownMetric) and math.isinf(geometry.threshold):
        reason = f"there is no metric: {geometry.metric.reason}"
        reason += f", and in its norm {geometry.no_threshold}" if geometry.no_threshold else ""
        warnings.warn(f"the readings have no threshold: {reason}.", stacklevel=3)


@torch.no_grad()
def geometry(optimizer: Optimizer) -> Geometry:
    """The geometry of an optimizer's next step, with the gradients in `.grad`; the optimizer does not change.

    A class that inherits `step` from a known class has its geometry. Any other class has an `UnknownMetric`,
    no decay, and an infinite threshold, which means none.

    Raises:
        ValueError: the metric depends on the gradient, and no tensor has a gradient.
    """
    weights = trained_parameters(optimizer)
    if in_norm := _in_norm(optimizer, weights):
        return in_norm
    reason = why_unknown(optimizer)
    if reason is not None:
        return Geometry(UnknownMetric(sum(w.numel() for w in weights), reason), math.inf, None)
    steps = _step_on_copy(optimizer)
    updates = _updates(optimizer, steps)
    pulls = [1.0 if m.beside_metric else 1 / m.metric for m in updates]
    shrinks = [m.lr * (m.decoupled + (m.coupled or 0.0)) for m in updates]
    pull, shrink = 1.0, shrinks[0]
    if any(m.coupled for m in updates):
        pull, shrink = _means(steps, pulls, shrinks)
    elif len({*shrinks}) > 1:
        (shrink,) = _means(steps, shrinks)
    thresholds = [m.threshold(pull) for m in updates]
    lowest = min(thresholds)
    stretch = [1.0 if t == lowest else min(t / lowest, MAX_STRETCH) for t in thresholds]
    metric = _metric(optimizer, weights, [m.metric * x for m, x in zip(updates, stretch, strict=True)])
    decay = Decay(shrink, coupled=any(m.coupled is not None for m in updates))
    betas = {0.0 if m.gradient_weight else m.beta for m in updates}
    return Geometry(metric, lowest, decay, momentum=betas.pop() if len(betas) == 1 else 0.0)


@torch.no_grad()
def update_rules(optimizer: Optimizer) -> list[MomentumUpdate]:
    """How each trained tensor moves in the next step of a known optimizer, in order."""
    return _updates(optimizer, _step_on_copy(optimizer))


def _updates(optimizer: Optimizer, steps: Sequence[ParameterStep]) -> list[MomentumUpdate]:
    rule = UPDATE_RULES[_known_base(type(optimizer))]
    return [rule(step) for step in steps]


def freeze_metric(optimizer: Optimizer) -> None:
    """Freeze the metric of a known optimizer, for tests of its threshold.

    Averages no longer change; the sum of Adagrad and the maximum of Adamax become very large; in a
    schedule-free average the newest z has the weight `FROZEN_SHARE`.
    """
    for group in optimizer.param_groups:
        if "base_optimizer" not in vars(optimizer):  # the radius of SAM is no memory
            group.update({key: 1.0 for key in group.keys() & {"alpha", "rho"}})
        if "betas" in group:
            group["betas"] = (group["betas"][0], BETA2_FROZEN)
        if "weight_sum" in group:
            weight = group["lr"] ** group["weight_lr_power"]
            group.update(lr_max=group["lr"], weight_sum=weight / FROZEN_SHARE - weight)
        for count in group.keys() & {"step", "k"}:  # of packages that count in the group
            if group[count] < FAR_STEP / 2:
                group[count] = int(FAR_STEP)
                for memory in (optimizer.state[w] for w in group["params"]):
                    for key in memory.keys() & {"exp_avg", "exp_inf"}:
                        memory[key].mul_({"exp_avg": 0.0, "exp_inf": LARGE}[key])
    for memory in optimizer.state.values():
        if memory.keys() & {"exp_avg", "sum"} and "step" in memory and float(memory["step"]) < FAR_STEP / 2:
            memory["step"].fill_(FAR_STEP)
            for key in memory.keys() & {"exp_avg", "sum", "exp_inf"}:
                memory[key].mul_({"exp_avg": 0.0, "sum": LARGE**2, "exp_inf": LARGE}[key])
        if "mu_product" in memory:
            memory["mu_product"].zero_()


def _in_norm(optimizer: Optimizer, weights: Sequence[Tensor]) -> Geometry | None:
    """The geometry of a class with a norm or an orbit, in one group and with settings of the same step."""
    rule, groups = NORM_RULES.get(_known_base(type(optimizer))), optimizer.param_groups
    if rule is None or len(groups) > 1 or _unsupported_setting(optimizer):
        return None
    known = rule(
        weights, {key: _plain(value) for key, value in groups[0].items() if key != "params"}, optimizer
    )
    if known is None or known.norm is None:
        return known
    return replace(known, metric=UnknownMetric(known.metric.dim, why_unknown(optimizer) or ""))


def _unsupported_setting(optimizer: Optimizer) -> str | None:
    """The name of a setting that changes the step into one without a rule here."""
    for setting in UNSUPPORTED_SETTINGS:
        if any(group.get(setting) for group in optimizer.param_groups) or getattr(optimizer, setting, False):
            return setting
    return None


def why_unknown(optimizer: Optimizer) -> str | None:
    """Why an optimizer has no known metric; None if it has one."""
    name, origin = type(optimizer).__name__, _known_base(type(optimizer))
    if origin in WITHOUT_METRIC:
        return f"{name} has none, for {WITHOUT_METRIC[origin]}"
    if origin not in UPDATE_RULES:
        return _why_undeclared(optimizer)
    if setting := _unsupported_setting(optimizer):
        return f"{name} with {setting} has none, for {UNSUPPORTED_SETTINGS[setting]}"
    return None


def expected_failures(optimizer: type[Optimizer]) -> Mapping[str, str]:
    """Checks of the conformance suite that a class fails, each with the reason."""
    return EXPECTED_FAILURES.get(_known_base(optimizer), {})


def _known_base(optimizer: type[Optimizer]) -> str:
    """The known class that defines its step; empty if there is none."""
    step = inspect.unwrap(optimizer.step)  # torch wraps the step of every class at its first use
    for kind in (kind for kind in optimizer.__mro__ if issubclass(kind, Optimizer)):
        name = f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
        if name in UPDATE_RULES or name in WITHOUT_METRIC:
            return name if inspect.unwrap(kind.step) is step else ""
    return ""


def _why_undeclared(optimizer: Optimizer) -> str:
    name = type(optimizer).__name__
    for attribute in ("optimizer", "base_optimizer", "optim"):
        inside = getattr(optimizer, attribute, None)
        if isinstance(inside, Optimizer):
            inner = type(inside).__name__
            return f"{name} wraps {inner} and may change its step; if it does not, give the {inner} itself"
    for kind in type(optimizer).__mro__[1:]:
        if f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}" in UPDATE_RULES:
            return f"{name} has a step of its own, which may not be that of {kind.__qualname__}"
    return f"{name} declares none, as a FamilyOptimizer does"


def _step_on_copy(optimizer: Optimizer) -> list[ParameterStep]:
    """Take the next step on a copy with the same state and no hooks; missing gradients are zero."""
    twin = copy.deepcopy(optimizer)
    missing = {
        key: value for key, value in vars(optimizer).items() if isinstance(value, bool | int | float | None)
    }
    vars(twin).update({key: value for key, value in missing.items() if key not in vars(twin)})
    start_training(twin)
    pairs = [
        (w, twin_w, group)
        for own_group, group in zip(optimizer.param_groups, twin.param_groups, strict=True)
        for w, twin_w in zip(own_group["params"], group["params"], strict=True)
        if w.requires_grad
    ]
    for w, twin_w, _ in pairs:  # the copy of an nn.Parameter has no gradient
        twin_w.grad = torch.zeros_like(w) if w.grad is None else w.grad.clone()
    norms = [torch.linalg.vector_norm(twin_w.grad) for _, twin_w, _ in pairs]
    twin.step()
    states = [(optimizer.state.get(w, {}), twin.state[twin_w]) for w, twin_w, _ in pairs]
    counts = [[{key: s[key] for key in COUNTS & s.keys()} for s in both] for both in states]
    groups = [{key: value for key, value in group.items() if key != "params"} for *_, group in pairs]
    counts, groups = _plain((counts, groups))

    steps = []
    for (w, *_), both, numbers, group in zip(pairs, states, counts, groups, strict=True):
        before, after = ({**s, **n} for s, n in zip(both, numbers, strict=True))
        steps.append(ParameterStep(w.detach(), before, after, group))
    measure = LENGTHS.get(_known_base(type(optimizer)))
    return _with_lengths(steps, norms, measure) if measure else steps


def _with_lengths(
    steps: Sequence[ParameterStep],
    gradient_norms: Sequence[Tensor],
    measure: Callable[[ParameterStep], list[Tensor]],
) -> list[ParameterStep]:
    """The same steps with the numbers that their rule needs; one synchronisation."""
    rows = [
        torch.stack([x.double() for x in (norm, t.w.double().square().sum(), *measure(t))])
        for norm, t in zip(gradient_norms, steps, strict=True)
    ]
    numbers = torch.stack(rows).tolist()
    total = math.hypot(*(norm for norm, *_ in numbers))
    return [
        replace(t, gradient_norm=total, square=square, lengths=tuple(lengths))
        for t, (_, square, *lengths) in zip(steps, numbers, strict=True)
    ]


def _plain(tree: Any) -> Any:
    """Dicts and tuples with numbers for tensors of one element; these are read from a device all at once."""
    tensors = [t for t in _leaves(tree) if isinstance(t, Tensor) and t.numel() == 1]
    on_device = {id(t): t.detach().double().reshape(()) for t in tensors if t.device.type != "cpu"}
    numbers = {id(t): t.item() for t in tensors if id(t) not in on_device}
    if on_device:
        numbers |= zip(on_device, torch.stack([*on_device.values()]).tolist(), strict=True)

    def replace(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replace(part) for key, part in value.items()}
        return (
            tuple(map(replace, value)) if isinstance(value, tuple | list) else numbers.get(id(value), value)
        )

    return replace(tree)


def _leaves(tree: Any) -> Iterator[Any]:
    """The values in dicts, tuples and lists."""
    if not isinstance(tree, dict | tuple | list):
        yield tree
        return
    for part in tree.values() if isinstance(tree, dict) else tree:
        yield from _leaves(part)


def _metric(optimizer: Optimizer, weights: Sequence[Tensor], parts: Sequence[Tensor | float]) -> Metric:
    """P from the P of each tensor."""
    numbers = {part for part in parts if not isinstance(part, Tensor)}
    if len(numbers) == 1 and not any(isinstance(part, Tensor) for part in parts):
        return ScalarMetric(sum(w.numel() for w in weights), numbers.pop())
    if all(w.grad is None for w in weights):
        raise ValueError(
            f"the metric of {type(optimizer).__name__}'s next step depends on the gradient; "
            "call loss.backward() before asking for it."
        )
    return DiagonalMetric(
        flatten(torch.as_tensor(p).to(w).expand_as(w) for p, w in zip(parts, weights, strict=True))
    )


def _means(steps: Sequence[ParameterStep], *quantities: Sequence[Tensor | float]) -> list[float]:
    """Σ x w² / Σ w² for each quantity x: its mean over the weights, each counted by its square."""
    rows = []
    for step, *parts in zip(steps, *quantities, strict=True):
        known = step.square is not None  # then no number is on a device
        square = torch.tensor(step.square, dtype=torch.float64) if known else step.w.double().square()
        rows.append(torch.stack([(part * square).sum() for part in (1.0, *parts)]))
    whole, *sums = map(sum, zip(*torch.stack(rows).tolist(), strict=True))  # one synchronisation
    return [total / (whole or 1.0) for total in sums]
