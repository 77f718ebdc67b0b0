"""The effective learning rate of GD with weight decay is a quasi-RMSprop schedule.

With β = (1 − ηλ)⁴, b² = ((1 − ηλ)⁻⁴ − 1)/2 and v = b²/ℓ², that is ℓ = b/√v,

    v' = β v + (1 − β) ‖∇L(θ)‖² (1 + ½ ℓ² ‖∇L(θ)‖²).

Checked along 300 steps on three losses.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022, up to the last factor, which makes it exact.
"""

from collections.abc import Iterator
from typing import Final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.theory.page import draw_errors
from optim_family.theory.small_networks import gradients, scale_invariant
from optim_family.theory.trajectory import record_trajectory
from optim_family.theory.verify import Case, NumericCheck

LR, WEIGHT_DECAY, STEPS, TOLERANCE = 0.3, 0.05, 300, 1e-10

Errors = dict[str, Tensor]


def observe() -> Errors:
    """The relative error of v' at every step, by the name of the loss."""
    beta = (1 - LR * WEIGHT_DECAY) ** 4
    b_squared = (1 / beta - 1) / 2
    errors = {}
    for name, (loss, start) in scale_invariant().items():
        path = record_trajectory(loss, start, STEPS, lr=LR, weight_decay=WEIGHT_DECAY)
        ell = path.effective_lr
        v = b_squared / ell**2
        square = gradients(loss, path.directions).square().sum(1)  #  ‖∇L(θ)‖², [t + 1]
        expected = beta * v + (1 - beta) * square * (1 + ell**2 * square / 2)
        errors[name] = v[1:] / expected[:-1] - 1
    return errors


def checks(errors: Errors) -> Iterator[NumericCheck]:
    """The largest error of each loss."""
    for name, of_steps in errors.items():
        yield NumericCheck.vanishes(
            f"{name} with BN: largest relative error of v'", of_steps, within=TOLERANCE
        )


def draw(ax: Axes, errors: Errors) -> None:
    """The errors, which are rounding noise."""
    draw_errors(ax, torch.arange(1, STEPS + 1), errors, TOLERANCE, "relative error of v'")


CASE: Final = Case("V2", observe, checks, draw)
