"""Geometries of external optimizers with the rule of a member of the family that no momentum describes.

These are the norms of sign descent, Lion and Muon, and the edge of SAM around SGD.

Source: the code of torch.optim, timm.optim and pytorch_optimizer, which cites the papers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from optim_family.geometry import Decay, Geometry, ScalarMetric, normalized_threshold, sam_edge
from optim_family.norms import MaxNorm, Norm, SpectralNorm

Group = Mapping[str, Any]
# Five Newton–Schulz steps in bfloat16 leave singular values between about 0.65 and 1.2 instead of at 1.
INEXACT: Final = 0.4
_POLAR: Final = (3.4445, -4.7750, 2.0315)  # the coefficients of these steps


def _lion(weights: Sequence[Tensor], group: Group, _: Optimizer) -> Geometry | None:
    decay = _decoupled(group)
    if decay is None or (group.get("corrected_weight_decay") and "max_lr" in group):
        return None
    return _geometry(_max_norm(weights), group, decay, "β₁", group["betas"][0])


def _signs(weights: Sequence[Tensor], group: Group, _: Optimizer) -> Geometry | None:
    """The sign of a gradient or of its average."""
    decay, beta = _decoupled(group), group["momentum"] if "momentum" in group else group["beta"]
    return None if decay is None else _geometry(_max_norm(weights), group, decay, "β", beta)


def _torch_muon(weights: Sequence[Tensor], group: Group, _: Optimizer) -> Geometry | None:
    if group["ns_steps"] != 5:
        return None  # another number of steps has another accuracy
    return _muon(weights, group, group["weight_decay"], _factor(group["adjust_lr_fn"] or "original"))


def _timm_muon(weights: Sequence[Tensor], group: Group, optimizer: Optimizer) -> Geometry | None:
    from timm.optim.muon import _is_suitable_for_muon  # others are trained by AdamW

    plain = (group["algo"], group["conv_mode"], group["ns_steps"]) == ("muon", "flatten", 5)
    exact = group["safety_factor"] == 1 and not group["scale_eps"]
    named = group["ns_coefficients"] in ("original", "quintic", _POLAR)
    chosen = group.get("use_muon", not group.get("use_fallback", False))
    routed = (optimizer.state[w].get("use_muon", _is_suitable_for_muon(w)) for w in weights)
    if not (plain and exact and named and chosen and all(routed)):
        return None
    return _muon(weights, group, group["weight_decay"], _factor(group["adjust_lr_fn"]))


def _kozistr_muon(weights: Sequence[Tensor], group: Group, _: Optimizer) -> Geometry | None:
    decay = _decoupled(group)
    plain = group["use_muon"] and group["ns_steps"] == 5 and group["ns_method"] == "newton_schulz"
    if decay is None or not plain or [*group["ns_coeffs"]] != [_POLAR]:
        return None
    factor = _factor("match_rms_adamw" if group["use_adjusted_lr"] else "original")
    return _muon(weights, group, decay, factor)


def _muon(
    weights: Sequence[Tensor], group: Group, decay: float, factor: Callable[[float, float], float]
) -> Geometry | None:
    """The weights are matrices, of their first dimension by all others; None if one is a vector."""
    if any(w.dim() < 2 for w in weights):
        return None
    radii = [factor(len(w), w.numel() / len(w)) for w in weights]
    norm = SpectralNorm([w.shape for w in weights], radii)
    return _geometry(norm, group, decay, "β", group["momentum"], INEXACT)


def _factor(adjust: str | None) -> Callable[[float, float], float]:
    """The factor of the learning rate of a matrix, as a function of its rows and columns."""
    return {
        None: lambda rows, columns: 1.0,
        "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
        "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
        "spectral_unclamped": lambda rows, columns: math.sqrt(rows / columns),
        "rms_to_rms": lambda rows, columns: math.sqrt(rows / columns),
    }[adjust]


def _sam(weights: Sequence[Tensor], group: Group, optimizer: Any) -> Geometry | None:
    """The orbit of `sam` around gradient descent: where P = I, coupled decay is the same as decoupled."""
    inner = optimizer.base_optimizer
    if type(inner) is not SGD or group["adaptive"] or optimizer.use_gc or group["momentum"]:
        return None
    gradients = [w.grad for w in weights if w.grad is not None]
    length = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
    lr, decay = float(group["lr"]), Decay(float(group["lr"]) * group["weight_decay"], coupled=True)
    edge = sam_edge((2 - decay.shrink) / lr, length, group["rho"])
    return Geometry(ScalarMetric(sum(w.numel() for w in weights)), edge, decay, orbit=True)


def _decoupled(group: Group) -> float | None:
    """λ of a step that multiplies the weights by 1 − ηλ; None if λ w is in the sign."""
    decay = float(group["weight_decay"])
    if not decay or not group.get("fixed_decay"):
        return decay if not decay or group.get("weight_decouple", True) else None
    return decay / float(group["lr"]) if group["weight_decouple"] else None


def _max_norm(weights: Sequence[Tensor]) -> MaxNorm:
    return MaxNorm(sum(w.numel() for w in weights))


def _geometry(
    norm: Norm, group: Group, decay: float, name: str, beta: float, inexact: float = 0.0
) -> Geometry:
    lr = float(group["lr"])
    shrink, reason = lr * decay, f"with momentum ({name} = {beta:g}) none is known"
    if beta:
        return Geometry.in_norm(norm, math.inf, Decay(shrink), no_threshold=reason, inexact=inexact)
    return Geometry.in_norm(norm, normalized_threshold(lr, shrink=shrink), Decay(shrink), inexact=inexact)


# Keys as those of `update_rules.UPDATE_RULES`; None where the settings are not those of the member.
NORM_RULES: Final[Mapping[str, Callable[[Sequence[Tensor], Group, Any], Geometry | None]]] = {
    "torch.Muon": _torch_muon,
    "timm.Muon": _timm_muon,
    "timm.Lion": _lion,
    "pytorch_optimizer.Muon": _kozistr_muon,
    "pytorch_optimizer.Lion": _lion,
    "pytorch_optimizer.SignSGD": _signs,
    "pytorch_optimizer.Tiger": _signs,
    "pytorch_optimizer.SAM": _sam,
}
