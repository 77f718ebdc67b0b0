"""Norms of external optimizers whose step no quadratic form describes: those that are a member of the family.

Source: the code of torch.optim and timm.optim, which cites the papers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from torch import Tensor

from optim_family.geometry import Decay, Geometry, normalized_threshold
from optim_family.norms import MaxNorm, Norm, SpectralNorm

# Five Newton–Schulz steps in bfloat16 leave singular values between about 0.65 and 1.2 instead of at 1.
INEXACT: Final = 0.4


def _lion(weights: Sequence[Tensor], group: Mapping[str, Any]) -> Geometry | None:
    decay = group["weight_decay"]
    if group.get("corrected_weight_decay") and "max_lr" in group:
        return None
    return _geometry(MaxNorm(sum(w.numel() for w in weights)), group, decay, "β₁", group["betas"][0])


def _muon(weights: Sequence[Tensor], group: Mapping[str, Any]) -> Geometry | None:
    if group["ns_steps"] != 5:
        return None  # another number of steps has another accuracy
    radii = [_radius(group["adjust_lr_fn"], *w.shape) for w in weights]
    norm = SpectralNorm([w.shape for w in weights], radii)
    return _geometry(norm, group, group["weight_decay"], "β", group["momentum"], INEXACT)


def _radius(adjust: str | None, rows: int, columns: int) -> float:
    """The factor of the learning rate of a matrix, as torch adjusts it."""
    if adjust == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    ratio = rows / columns
    return math.sqrt(ratio if adjust == "spectral_unclamped" else max(1.0, ratio))


def _geometry(
    norm: Norm, group: Mapping[str, Any], decay: float, name: str, beta: float, inexact: float = 0.0
) -> Geometry:
    lr = float(group["lr"])
    shrink, reason = lr * decay, f"with momentum ({name} = {beta:g}) none is known"
    if beta:
        return Geometry.in_norm(norm, math.inf, Decay(shrink), no_threshold=reason, inexact=inexact)
    return Geometry.in_norm(norm, normalized_threshold(lr, shrink=shrink), Decay(shrink), inexact=inexact)


# Keys as those of `update_rules.UPDATE_RULES`; None where the settings are not those of the member.
NORM_RULES: Final[Mapping[str, Callable[[Sequence[Tensor], Mapping[str, Any]], Geometry | None]]] = {
    "torch.Muon": _muon,
    "timm.Lion": _lion,
}
