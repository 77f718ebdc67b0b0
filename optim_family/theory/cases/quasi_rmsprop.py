"""The effective learning rate of GD with weight decay is a quasi-RMSprop schedule.

With β = (1 − ηλ)⁴, b² = ((1 − ηλ)⁻⁴ − 1)/2 and v = b²/ℓ², that is ℓ = b/√v,

    v' = β v + (1 − β) ‖∇L(θ)‖² (1 + ½ ℓ² ‖∇L(θ)‖²).

Along 300 steps on three losses.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022, up to the last factor, with which it is exact.
"""

from collections.abc import Iterator
from typing import Final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.theory.drawing import draw_errors, draw_tolerance, largest
from optim_family.theory.small_networks import gradients, scale_invariant
from optim_family.theory.trajectory import descend
from optim_family.theory.verify import Case, Finding

LR, WEIGHT_DECAY, STEPS, TOLERANCE = 0.3, 0.05, 300, 1e-10

Errors = dict[str, Tensor]


def observe() -> Errors:
    """The relative error of v' at every step, by the name of the loss."""
    beta = (1 - LR * WEIGHT_DECAY) ** 4
    b_squared = (1 / beta - 1) / 2
    errors = {}
    for name, (loss, start) in scale_invariant().items():
        path = descend(loss, start, STEPS, "gd", lr=LR, weight_decay=WEIGHT_DECAY)
        ell = LR / ((1 - LR * WEIGHT_DECAY) * path.weights.square().sum(1))
        v = b_squared / ell**2
        square = gradients(loss, path.directions).square().sum(1)  #  ‖∇L(θ)‖², [t + 1]
        expected = beta * v + (1 - beta) * square * (1 + ell**2 * square / 2)
        errors[name] = v[1:] / expected[:-1] - 1
    return errors


def findings(errors: Errors) -> Iterator[Finding]:
    """The largest error of each loss."""
    for name, of_steps in errors.items():
        yield Finding.vanishes(
            f"{name} with BN: largest relative error of v'", largest(of_steps), within=TOLERANCE
        )


def draw(ax: Axes, errors: Errors) -> None:
    """All errors, in rounding noise."""
    for index, (name, of_steps) in enumerate(errors.items()):
        draw_errors(ax, torch.arange(1, STEPS + 1), of_steps, name, index)
    draw_tolerance(ax, TOLERANCE)
    ax.set(xlabel="step", ylabel="relative error of v'")


CASE: Final = Case("V2", observe, findings, draw)
