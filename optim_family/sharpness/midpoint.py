"""Sharpness where the oscillation has been taken out: at the midpoint of three successive weights.

    m = (wₜ₋₁ + 2 wₜ + wₜ₊₁) / 4

At the edge of stability w is φ + (−1)ᵗ a v₁ beside a slow drift. The midpoint is free of every oscillation of
period 2 and of a constant drift; the iterate itself lies up the walls of the valley and reads high.
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
    """The tensors stand at the weights w [d] inside, and at the end where they were, to the last bit.

    Graphs built before do not survive it, and torch says so when they are used: make the Hessian inside.
    """
    before = space.weights()
    try:
        space.assign(weights)
        yield weights
    finally:
        space.assign(before)


@final
class WeightHistory:
    """Remembers the last three weights, copies; memory is 3 · d numbers."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def push(self, weights: Tensor) -> None:
        """The weights [d] after one more step; they must come from every step."""
        self.weights = [*self.weights[-2:], weights.detach().clone()]

    @property
    def midpoint(self) -> Tensor | None:
        """Of the last three, [d]; None before there are three."""
        return midpoint(*self.weights) if len(self.weights) == 3 else None

    def state_dict(self) -> dict[str, Any]:
        """What the next midpoints depend on."""
        return {"weights": torch.stack(self.weights) if self.weights else torch.empty(0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another trail stood."""
        self.weights = list(state["weights"])


Trail = WeightHistory  # the former name
