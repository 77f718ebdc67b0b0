"""The loss as a sum over chunks of the data; a closure for each chunk returns its term with a graph."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from optim_family.curvature.example_counts import Count, Pair, mismatch, pairs_and_counts
from optim_family.curvature.isolation import Isolation, read_chunks, unwrap_model
from optim_family.curvature.memory import out_of_memory
from optim_family.curvature.target_shapes import target_mismatch
from optim_family.errors import one_line

ChunkLoss = Callable[[], Tensor]
T = TypeVar("T")


def chunk_losses(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Any],
    chunks: Iterable[Any],
    count: Count | None = None,
) -> list[ChunkLoss]:
    """Closures L_c = (n_c / n) · loss_fn(model(x_c), y_c) that leave the model as it is.

    The model runs in its present mode on copies of its buffers, and random layers draw the same
    numbers every time, so that a closure is a fixed function of the weights. A tuple or list x is given as
    positional arguments, a dictionary as keywords.

    Args:
        model: as for `measure`.
        loss_fn: the mean loss of one chunk, a scalar, or an output with a scalar `.loss`.
        chunks: pairs (x, y), or triples (x, y, n) with n examples.
        count: n of a pair (x, y), where its length does not say it.

    Raises:
        ValueError: no chunks, no examples, lengths that do not say how many, or a model that cannot be
            differentiated twice; later, a loss that is not one number with a graph.
    """
    data = [chunks] if isinstance(chunks, Mapping | Tensor) else read_chunks(chunks)
    pairs, counts = pairs_and_counts(data, loss_fn, count)
    isolation = Isolation(unwrap_model(model), loss_fn)
    return [
        ModelLoss(isolation, loss_fn, _without_inference_tensors(pair), counts[index] / sum(counts), index)
        for index, pair in enumerate(pairs)
        if counts[index]  # the mean over no examples is not a number
    ]


def run_isolated(chunk: ChunkLoss, work: Callable[[], T]) -> T:
    """The result of work that evaluates and differentiates the chunk, without side effects on the model.

    The backward pass belongs to the work: a checkpoint runs the model again there.
    """
    return chunk.isolation.run(work, chunk.index) if isinstance(chunk, ModelLoss) else work()


def weighted_loss(chunk: ChunkLoss, weight: float) -> ChunkLoss:
    """weight · L_c."""
    if isinstance(chunk, ModelLoss):
        share = weight * chunk.share
        return ModelLoss(chunk.isolation, chunk.loss_fn, chunk.pair, share, chunk.index)
    return lambda: weight * chunk()


@final
class ModelLoss:
    """The share of one chunk in the loss of a model; called, it returns a scalar with a graph."""

    def __init__(
        self, isolation: Isolation, loss_fn: Callable[[Any, Any], Any], pair: Pair, share: float, index: int
    ) -> None:
        self.isolation, self.loss_fn, self.pair, self.share, self.index = (
            isolation,
            loss_fn,
            pair,
            share,
            index,
        )

    def __call__(self) -> Tensor:
        """share · loss_fn(model(x), y)."""
        return self.isolation.run(lambda: self.share * self._mean(), self.index)

    def _mean(self) -> Tensor:
        x, y = self.pair
        args, kwargs = _arguments(x)
        outputs = None
        try:
            outputs = self.isolation.model(*args, **kwargs)
            loss = self.loss_fn(outputs, y)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            # Only what fails is refused: the time axis may come first, or y have a number for each token.
            problem = mismatch(x, y) or target_mismatch(self.loss_fn, outputs, y)
            if out_of_memory(error) or not problem:
                raise
            raise ValueError(f"chunk {self.index}: {problem} ({one_line(error).rstrip('.')}).") from error
        loss = getattr(loss, "loss", loss)  # an output of transformers
        must = "loss_fn must give the mean loss of a chunk, one number with a graph"
        if not isinstance(loss, Tensor):
            raise ValueError(f"{must}; got a {type(loss).__name__}.")
        if loss.numel() != 1:
            raise ValueError(f"{must}; got shape {list(loss.shape)}.")
        if loss.is_complex() or not loss.is_floating_point():
            raise ValueError(f"{must}; got {loss.dtype}.")
        if not loss.requires_grad:
            raise ValueError(f"{must}; this one does not depend on the weights by a graph: is it detached?")
        return loss.reshape(())


def _arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a model is called with; a named tuple, as a packed sequence, is one argument."""
    if isinstance(x, Mapping):
        return (), dict(x)
    return (tuple(x), {}) if type(x) in (tuple, list) else ((x,), {})


def _without_inference_tensors(part: Any) -> Any:
    """The same with copies of inference tensors, which cannot be part of a graph."""
    if isinstance(part, Tensor) and part.is_inference():
        with torch.inference_mode(False):
            return part.clone()
    if isinstance(part, PackedSequence):
        return PackedSequence(*(_without_inference_tensors(t) for t in part))
    if type(part) in (tuple, list):
        return type(part)(map(_without_inference_tensors, part))
    return (
        {key: _without_inference_tensors(value) for key, value in part.items()}
        if type(part) is dict
        else part
    )
