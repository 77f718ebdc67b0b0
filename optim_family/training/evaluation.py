"""Loss and accuracy of a network, on its training set and on its test sets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from optim_family.training.process_group import ProcessGroup

LossFunction = Callable[[Tensor, Tensor], Tensor]
Batch = Callable[[], tuple[Tensor, Tensor]]  # inputs and labels, made when they are needed


@final
@dataclass(frozen=True)
class Evaluation:
    """Losses and accuracies at the present weights; accuracies are fractions.

    Attributes:
        further: `test_loss_NAME` and `test_accuracy_NAME` of each further test set.
    """

    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    further: Mapping[str, float]


@torch.no_grad()
def evaluate(
    network: nn.Module,
    loss_fn: LossFunction,
    train: Sequence[Batch],
    tests: Mapping[str, Sequence[Batch]],
    process_group: ProcessGroup,
) -> Evaluation:
    """Evaluate the training set in training mode, then the test sets with the statistics of the training set.

    Args:
        network: in training mode, which it is left in.
        loss_fn: the mean loss of a batch, of outputs and labels.
        train: the ghost batches of the training set.
        tests: name → batches of a test set; the first has the name "".
        process_group: the processes that share the batches.
    """
    shard = process_group.shard(train)
    with recomputing_statistics(network):
        sums = [_sums(network, loss_fn, shard)]
    _average_statistics(network, len(shard) / len(train), process_group)
    network.eval()
    try:
        for batches in tests.values():
            sums.append(_sums(network, loss_fn, process_group.shard(batches)))
    finally:
        network.train()
    totals = process_group.all_reduce(torch.stack(sums))[0]  #          [sets, (loss, correct, count)]
    means = (totals[:, :2] / totals[:, 2:]).tolist()  # the only synchronisation with the device
    (train_loss, train_accuracy), (test_loss, test_accuracy), *others = means
    fields = [f"test_{mean}_{name}" for mean in ("loss", "accuracy") for name in tests if name]
    further = dict(zip(fields, chain.from_iterable(zip(*others, strict=True)), strict=True))
    return Evaluation(train_loss, train_accuracy, test_loss, test_accuracy, further)


def _sums(network: nn.Module, loss_fn: LossFunction, batches: Sequence[Batch]) -> Tensor:
    """Sum of the losses, number of correct predictions, number of examples, in float64 [3]."""
    sums = torch.zeros(3, dtype=torch.float64, device=next(network.parameters()).device)
    for batch in batches:
        inputs, labels = batch()
        outputs = network(inputs)
        sums[0] += loss_fn(outputs, labels).double() * len(labels)
        sums[1] += (outputs.argmax(1) == labels).sum()
        sums[2] += len(labels)
    return sums


@contextmanager
def recomputing_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, forward passes in training mode average the statistics of their batches into the buffers.

    Evaluation mode then normalises with the mean over those batches, each with the same weight. The flags are
    restored at the end; the mode is the caller's. A network without BatchNorm passes through unchanged.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    settings = [(norm, norm.momentum, norm.track_running_stats) for norm in norms]
    with ExitStack() as hooks:
        try:
            for norm in norms:
                norm.track_running_stats = True
                norm.reset_running_stats()
                hooks.callback(norm.register_forward_pre_hook(_RunningMean()).remove)
            yield
        finally:
            for norm, momentum, tracks in settings:
                norm.momentum, norm.track_running_stats = momentum, tracks


@final
class _RunningMean:
    """Gives the n-th batch the weight 1/n; counts on the host, where torch would read its counter."""

    def __init__(self) -> None:
        self.batches = 0

    def __call__(self, norm: _BatchNorm, inputs: object) -> None:
        self.batches += 1
        norm.momentum = 1 / self.batches


def _average_statistics(network: nn.Module, share: float, process_group: ProcessGroup) -> None:
    """The mean over all ghost batches, out of the mean over those of each process."""
    buffers = [b for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    if buffers and share < 1:
        sums = process_group.all_reduce(*(share * b for b in buffers))
        for buffer, total in zip(buffers, sums, strict=True):
            buffer.copy_(total)
