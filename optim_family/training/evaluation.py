"""Loss and accuracy of a network, on its training set and on its test sets."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def recomputing_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, forward passes in training mode average the statistics of their batches into the buffers.

    Evaluation mode then normalises with the mean over those batches, each with the same weight. The flags are
    restored at the end; the mode is the caller's. A network without BatchNorm passes through unchanged.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    kept = [(norm, norm.momentum, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.track_running_stats = None, True
            norm.reset_running_stats()
        yield
    finally:
        for norm, momentum, tracks in kept:
            norm.momentum, norm.track_running_stats = momentum, tracks


@final
@dataclass(frozen=True)
class Evaluation:
    """How good the weights are; accuracies are fractions.

    Attributes:
        further: `test_loss_NAME` and `test_accuracy_NAME` of each further test set.
    """

    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    further: Mapping[str, float]
