"""GD with weight decay is projected gradient descent on the sphere.

For a scale-invariant loss, one step w' = (1 − ηλ) w − η ∇L(w) moves the direction θ = w/ρ as

    θ' = (θ − ℓ ∇L(θ)) / ‖θ − ℓ ∇L(θ)‖,   ℓ = η / ((1 − ηλ) ρ²).

Three losses, fifty steps each from random weights, each step checked separately.

Source: K. Lyu, Z. Li, S. Arora, "Understanding the generalization benefit of normalization layers:
sharpness reduction", NeurIPS 2022.
"""

from collections.abc import Iterator
from typing import Final

import torch
from matplotlib.axes import Axes
from torch import Tensor

from optim_family.theory.page import draw_errors
from optim_family.theory.small_networks import gradients, scale_invariant
from optim_family.theory.toys import unit
from optim_family.theory.trajectory import record_trajectory
from optim_family.theory.verify import Case, NumericCheck

LR, WEIGHT_DECAY, STEPS, TOLERANCE = 0.3, 0.05, 50, 1e-12

Errors = dict[str, Tensor]


def observe() -> Errors:
    """‖θ' − (θ − ℓ ∇L(θ)) / ‖·‖‖ at every step, by the name of the loss."""
    errors = {}
    for name, (loss, start) in scale_invariant().items():
        path = record_trajectory(loss, start, STEPS, lr=LR, weight_decay=WEIGHT_DECAY)
        theta, rho = path.directions, path.weights.norm(dim=1)
        ell = LR / ((1 - LR * WEIGHT_DECAY) * rho**2)
        expected = unit(theta - ell[:, None] * gradients(loss, theta))  #         [t + 1, d]
        errors[name] = (theta[1:] - expected[:-1]).norm(dim=1)
    return errors


def checks(errors: Errors) -> Iterator[NumericCheck]:
    """The largest error of each loss."""
    for name, of_steps in errors.items():
        yield NumericCheck.vanishes(
            f"{name} with BN: largest ‖θ' − projected step‖", of_steps, within=TOLERANCE
        )


def draw(ax: Axes, errors: Errors) -> None:
    """The errors, which are rounding noise."""
    draw_errors(ax, torch.arange(1, STEPS + 1), errors, TOLERANCE, "‖θ' − projected step‖")


CASE: Final = Case("V1", observe, checks, draw)
