"""An exponentially growing learning rate moves the direction exactly as weight decay does.

On a scale-invariant loss, θ = w/‖w‖ takes the same path under

    η, λ                                     weight decay
    η_t = (1 − ηλ)^{−2t − 1} η,  λ = 0       and the weights are (1 − ηλ)^{−t} times as large

for GD, and for RMSprop of ĝ = ρ g. 300 steps of both; as a control a constant rate without decay.

Source: Z. Li, S. Arora, "An exponential learning rate schedule for deep learning" (2020); for RMSprop, and
for decoupled decay, our own calculation.
"""

from functools import partial

import torch

from optim_family.theory.page import CONTROL, Errors, error_case
from optim_family.theory.small_networks import scale_invariant
from optim_family.theory.trajectory import record_trajectory

STEPS, TOLERANCE = 300, 1e-10
LR, DECAY = 0.01, 0.05


def observe() -> Errors:
    """Distances from the path with weight decay on linear regression with BN, [t + 1], by optimizer."""
    loss, start = scale_invariant()["regression"]
    errors: Errors = {}
    for name, optimizer in {"GD": "gd", "RMSprop": "rmsprop"}.items():
        record = partial(record_trajectory, loss, start, STEPS, optimizer, lr=LR)
        with_decay = record(weight_decay=DECAY)
        with_growth = record(weight_decay=0.0, schedule=f"growth:decay={DECAY}")
        plain = record(weight_decay=0.0)
        theta = with_decay.directions
        norm_ratio = with_growth.weights.norm(dim=1) / with_decay.weights.norm(dim=1)
        decay = (1 - LR * DECAY) ** torch.arange(STEPS + 1, dtype=norm_ratio.dtype)
        errors[f"{name}: largest ‖θ − θ'‖"] = (theta - with_growth.directions).norm(dim=1)
        errors[f"{name}: ‖w'‖ (1 − ηλ)^t / ‖w‖ − 1"] = norm_ratio * decay - 1
        errors[f"{name} with neither: largest ‖θ − θ'‖{CONTROL}"] = (theta - plain.directions).norm(dim=1)
    return errors


checks, draw = error_case(TOLERANCE, "distance from the path with decay", control=1e-6)
