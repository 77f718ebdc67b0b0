"""A model with a loss and a batch, and what the sources of models have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

from torch import Tensor, nn
from torch.nn import functional

LARGEST: Final = 60_000_000  # weights


@final
@dataclass(frozen=True)
class Example:
    """A model, and what `measure` needs besides it.

    Attributes:
        model: in float32; its batch is in float64.
        loss_fn: of its outputs and y.
        chunk: the batch (x, y).
    """

    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    chunk: tuple[Any, Any]


def parameter_count(model: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in model.parameters())


def require_small(count: float) -> None:
    """Refuse a model whose search for λ₁ needs too much memory.

    Raises:
        ValueError: it has more than `LARGEST` weights.
    """
    if count > LARGEST:
        memory = 25 * 8 * LARGEST / 1e9
        raise ValueError(f"more than {LARGEST:,} weights: 25 vectors of a search take over {memory:.0f} GB")


def classification_loss(outputs: Any, y: Tensor) -> Tensor:
    """The cross-entropy of the logits, or of the first of several heads."""
    outputs = getattr(outputs, "logits", outputs)
    return functional.cross_entropy(outputs[0] if isinstance(outputs, tuple | list) else outputs, y)
