"""One step with momentum and decay, with a frozen metric, and the curvature at which it becomes unstable.

    g ← g + λ w                        coupled decay, or λ = 0
    m ← β m + g
    w ← (1 − s) w − η P⁻¹ (a g + b m)

(a, b) = (1, 0) is gradient descent, (0, 1) heavy ball, (0, 1 − β) an average, (1, β) Nesterov. At curvature h
the characteristic polynomial is (z − 1 + s)(z − β) + η (h + λ)(a (z − β) + b z). A weight without gradient
shrinks by the factor z₀ per step. An oscillation z = −z₀ shrinks at the same rate at the curvature

    h = (z₀ + 1 − s)(z₀ + β) / (η (a (z₀ + β) + b z₀)) − λ.

Source: as in `optim_family.geometry`; this formula generalises its two thresholds.
"""

import math
from dataclasses import InitVar, dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True)
class MomentumUpdate:
    """How one tensor moves in its next step, in the letters above.

    Attributes:
        metric: P, a number or the diagonal in the tensor's shape.
        lr: η.
        beta: β.
        gradient_weight: a.
        momentum_weight: b.
        decoupled: s / η, the λ of decoupled decay.
        coupled: λ; None if the optimizer has no coupled decay.
        beside_metric: P does not act on the coupled decay: its gradient is g + P λ w.
        fresh: former name of `gradient_weight`.
        remembered: former name of `momentum_weight`.
    """

    metric: Tensor | float
    lr: float
    beta: float = 0.0
    gradient_weight: float = 1.0
    momentum_weight: float = 0.0
    decoupled: float = 0.0
    coupled: float | None = None
    beside_metric: bool = False
    fresh: InitVar[float | None] = None
    remembered: InitVar[float | None] = None

    def __post_init__(self, fresh: float | None, remembered: float | None) -> None:
        """Accept the weights under their former names, and make them readable under both."""
        for former, name, value in (
            ("fresh", "gradient_weight", fresh),
            ("remembered", "momentum_weight", remembered),
        ):
            if value is not None:
                object.__setattr__(self, name, value)
            object.__setattr__(self, former, getattr(self, name))

    def threshold(self, pull: float = 1.0) -> float:
        """The h of the last formula above, with λ · pull instead of λ."""
        if not self.lr:
            return math.inf
        a, b, beta = self.gradient_weight, self.momentum_weight, self.beta
        s, decay = self.lr * self.decoupled, (self.coupled or 0.0) * pull
        z = 1 - s
        if decay:  # the larger root of the polynomial at h = 0
            linear = 1 - s + beta - self.lr * decay * (a + b)
            constant = beta * (1 - s - self.lr * decay * a)
            z = (linear + math.sqrt(max(linear**2 - 4 * constant, 0.0))) / 2
        if not z + beta:  # the decay removes the whole weight in one step: take the limit
            return (1 - s) / (self.lr * (a + b)) - decay
        return (z + 1 - s) * (z + beta) / (self.lr * (a * (z + beta) + b * z)) - decay


Motion = MomentumUpdate  # former name
