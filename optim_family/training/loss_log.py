"""The training losses of steps whose values the host has not read from the device yet."""

import math
from collections.abc import Iterator
from typing import Final, final

import torch
from torch import Tensor

# Steps after which their losses are read. On a GPU the host runs ahead, and waits for it at each reading.
STEPS_PER_READ: Final = {"cpu": 1, "cuda": 10}


@final
class NotFinite(FloatingPointError):
    """The loss of a step is not finite.

    Attributes:
        step: optimizer steps before it.
        tau: τ = Σ ηλ over these steps.
    """

    def __init__(self, step: int, tau: float) -> None:
        super().__init__(f"the training loss of step {step} is not finite")
        self.step, self.tau = step, tau


@final
class LossLog:
    """Remembers the losses of steps until they are read, all at once."""

    def __init__(self, device: torch.device) -> None:
        self.length = STEPS_PER_READ.get(device.type, 1)
        self.entries: list[tuple[int, float, Tensor]] = []

    def append(self, step: int, tau: float, loss: Tensor) -> None:
        """Add the loss at the weights after `step` steps, a scalar."""
        self.entries.append((step, tau, loss))

    @property
    def is_full(self) -> bool:
        """Whether the losses should be read now."""
        return len(self.entries) >= self.length

    def read(self) -> Iterator[tuple[int, float]]:
        """Each step and its loss, in order; forgets them.

        Raises:
            NotFinite: the loss of this step is not finite; later ones are dropped.
        """
        entries, self.entries = self.entries, []
        if not entries:
            return
        losses = torch.stack([loss for *_, loss in entries]).tolist()  # the host waits here
        for (step, tau, _), loss in zip(entries, losses, strict=True):
            if not math.isfinite(loss):
                raise NotFinite(step, tau)
            yield step, loss
