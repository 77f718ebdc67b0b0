"""Sharpness without the oscillation: at the midpoint of three successive weights.

    m = (wₜ₋₁ + 2 wₜ + wₜ₊₁) / 4

At the edge of stability w ≈ φ + (−1)ᵗ a v₁ plus a slow drift. The midpoint removes every oscillation of
period 2 and does not shift under a constant drift. The iterate lies on the valley's walls, which are sharper.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor

from optim_family.space import ParameterSpace


def midpoint(before: Tensor, now: Tensor, after: Tensor) -> Tensor:
    """(wₜ₋₁ + 2 wₜ + wₜ₊₁) / 4, [d], a new tensor."""
    return (before + 2 * now + after) / 4


@contextmanager
def moved_to(space: ParameterSpace, weights: Tensor) -> Iterator[Tensor]:
    """Set the weights to w [d] inside; restore them bitwise.

    Graphs that were built before become invalid; torch then raises an error. Make the Hessian inside.
    """
    before = space.weights()
    try:
        space.assign(weights)
        yield weights
    finally:
        space.assign(before)


@final
class WeightHistory:
    """Remembers copies of the last three weights; memory is 3 · d numbers."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def push(self, weights: Tensor) -> None:
        """Add the weights [d] of the next step; call it after every step."""
        weights = weights.detach().clone()
        self.weights = [*(w.to(weights.device) for w in self.weights[-2:]), weights]  # loaded on the CPU

    @property
    def midpoint(self) -> Tensor | None:
        """Of the last three, [d]; None before there are three."""
        return midpoint(*self.weights) if len(self.weights) == 3 else None

    def state_dict(self) -> dict[str, Any]:
        """The state that the next midpoints depend on."""
        return {"weights": torch.stack(self.weights) if self.weights else torch.empty(0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved weight history."""
        self.weights = list(state["weights"])


Trail = WeightHistory  # the former name
