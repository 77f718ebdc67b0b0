"""The Hessian of a loss over fixed chunks, as an operator: exact products by double backward.

L(w) = Σ_c L_c(w) with one closure for each chunk. Differentiating ⟨∇L_c, v⟩ once more gives ∇²L_c v.
The graph of ∇L_c is kept between products for as many chunks as memory allows (a product then costs about
two gradients), or built again for each product (one more). Double backward is the one composition that
torch gets right through a BatchNorm in training mode with trained affine parameters.

Source: B. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial, reduce
from typing import Any, Literal, TypeVar, final

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from optim_family.curvature.chunked_loss import ChunkLoss, ModelLoss, run_isolated, weighted_loss
from optim_family.curvature.double_backward import second_derivatives
from optim_family.curvature.loss_graph import LossGraph, explain_missing_derivative
from optim_family.curvature.memory import SavedTensors, free_bytes, out_of_memory
from optim_family.operators import SymmetricOperator
from optim_family.space import flatten, unflatten

Hvp = Literal["auto", "retained", "rebuilt"]
KeptGraphs = Literal["retained", "partly retained", "rebuilt"]
Shard = Callable[[Sequence[Any]], Sequence[Any]]
T = TypeVar("T")

# Share of the free memory that retained graphs may take: products and the basis need the rest.
MEMORY_SHARE = 0.4


@final
class Hessian(SymmetricOperator):
    """∇²L at the present weights [d, d]; remembers the graphs of ∇L_c unless `hvp` is `rebuilt`.

    Args:
        chunks: closures that return L_c, a scalar with a graph; each gives the same value every time. Those
            of a model have their own share in the loss; others have equal shares.
        params: the tensors that w consists of, in order.
        hvp: keep the graphs (`retained`), or build them for every product (`rebuilt`). With `auto` those of
            as many chunks are kept as fit the free memory, judged by the first one.
        all_reduce: sums a vector over the processes that share the chunks; None for a single process.
        shard: the part of a sequence that this process computes; None for a single process.
        processes: number of processes that share the memory of this device, each with as many chunks.
        mode: the former name of `hvp`.

    Attributes:
        hvp: the graphs of all chunks are `retained`, those of some are `partly retained`, or all are
            `rebuilt`; when memory runs out, it becomes `rebuilt`.
        ran_out_of_memory: the graphs that were kept have been dropped.
        graph: what the graph of the first chunk's loss shows; None until it has been built.

    Raises:
        FloatingPointError: the loss of a chunk is not finite.
        ValueError: an operation in the loss has no second derivative.
    """

    def __init__(
        self,
        chunks: Sequence[ChunkLoss],
        params: Sequence[Tensor],
        hvp: Hvp | None = "auto",
        all_reduce: Callable[[Tensor], Tensor] | None = None,
        shard: Shard | None = None,
        processes: int = 1,
        *,
        mode: Hvp | None = None,
    ) -> None:
        self.all_chunks, self.shard = tuple(chunks), shard or list
        self.chunks, self.params = tuple(self.shard(self.all_chunks)), tuple(params)
        self.dim = sum(p.numel() for p in self.params)
        self.dtype = reduce(torch.promote_types, (p.dtype for p in self.params))
        hvp = mode or hvp or "auto"
        self.hvp: KeptGraphs = "rebuilt" if hvp == "rebuilt" else "retained"
        self.all_reduce, self.processes = all_reduce, processes
        self._graphs: list[list[GradientEdge | None]] = []  # of the first chunks
        self._gradient_sum: Tensor | None = None
        self._summed = 0  # over so many chunks
        self._versions = [p._version for p in self.params]
        self.ran_out_of_memory = False
        self.graph: LossGraph | None = None
        if hvp != "rebuilt":
            self._with_oom_fallback(partial(self._retain, planned=hvp == "auto"))

    @property
    def mode(self) -> KeptGraphs:
        """The former name of `hvp`."""
        return self.hvp

    @property
    def machine_epsilon(self) -> float:
        """That of the coarsest format in the graph of the first chunk; 0.0 before that graph is built."""
        return self.graph.machine_epsilon if self.graph else 0.0

    @property
    def device(self) -> torch.device:
        """That of the weights."""
        return self.params[0].device

    def apply(self, v: Tensor) -> Tensor:
        """∇²L v, [d] → [d]."""
        product = self._with_oom_fallback(partial(self._product, v))
        return self.all_reduce(product) if self.all_reduce else product

    def gradient(self) -> Tensor:
        """∇L, [d]; where graphs are kept, it was computed with them.

        Raises:
            RuntimeError: the weights have changed since the graphs of some chunks were built.
        """
        if 0 < self._summed < len(self.chunks) and self._versions != [p._version for p in self.params]:
            raise RuntimeError("the weights have changed since the graphs of some chunks were built.")
        gradient = self._with_oom_fallback(partial(self._sum_gradients, len(self.chunks)))
        return self.all_reduce(gradient) if self.all_reduce else gradient

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each chunk in the loss, [N]."""
        equal = 1 / len(self.all_chunks)
        return tuple(c.share if isinstance(c, ModelLoss) else equal for c in self.all_chunks)

    def weighted_terms(self, weights: Mapping[int, float]) -> "Hessian":
        """Σ w_c ∇²L_c over some of the chunks; the processes share these anew."""
        chunks = [weighted_loss(self.all_chunks[index], weight) for index, weight in weights.items()]
        return Hessian(chunks, self.params, "auto", self.all_reduce, self.shard, self.processes)

    def apply_by_terms(self, v: Tensor, see: Callable[[int, Tensor], None]) -> Tensor:
        """∇²L v; calls `see` with the index and the product of each chunk of this process."""
        product = self._with_oom_fallback(partial(self._product, v, see))
        return self.all_reduce(product) if self.all_reduce else product

    def all_reduce_terms(self, numbers: Tensor) -> Tensor:
        """The sum over the processes that share the chunks."""
        return self.all_reduce(numbers) if self.all_reduce else numbers

    def _with_oom_fallback(self, work: Callable[[], T]) -> T:
        """The result of the work; if it runs out of memory, drop the graphs and repeat it."""
        try:
            return work()
        except RuntimeError as error:
            if self.hvp == "rebuilt" or not out_of_memory(error):
                raise
        self.hvp, self._graphs, self.ran_out_of_memory = "rebuilt", [], True
        if self.params[0].is_cuda:
            torch.cuda.empty_cache()
        return work()

    def _retain(self, planned: bool) -> None:
        """Keep the graphs of all chunks, or if planned those of the first ones, as many as fit.

        None is kept if their size is unknown, as with torch.func in the loss or with sparse tensors.
        """
        fitting = 0 if self.ran_out_of_memory else len(self.chunks)
        if planned and fitting:
            fitting = self._plan()
        if fitting:
            self._sum_gradients(fitting, keep=True)
        else:  # the gradient is computed when it is asked for, at the weights of that time
            self._gradient_sum, self._summed = None, 0
        if fitting < len(self.chunks):
            self.hvp = "partly retained" if fitting else "rebuilt"

    def _plan(self) -> int:
        """The number of graphs to keep, judged by the first one, which stays if one fits.

        If not all fit, there is also room for one that is built again.
        """
        free, saved = free_bytes(self.device), SavedTensors(self.params)
        try:
            self._sum_gradients(1, keep=True, hooks=saved.hooks())
            fitting = int(MEMORY_SHARE * free / (max(saved.bytes, 1) * self.processes))
        except RuntimeError:
            fitting = 0
        fitting = len(self.chunks) if fitting >= len(self.chunks) else max(fitting - 1, 0)
        del self._graphs[fitting:]
        return fitting

    def _sum_gradients(
        self, end: int, *, keep: bool = False, hooks: AbstractContextManager[None] | None = None
    ) -> Tensor:
        """Extend the sum of ∇L_c to all chunks before `end`; keep the graphs of the new ones, or not."""
        if self._gradient_sum is None:
            total = torch.zeros(self.dim, dtype=self.dtype, device=self.device)
        else:
            total = self._gradient_sum
        losses = []
        for chunk in self.chunks[self._summed : end]:
            loss, gradient = run_isolated(chunk, partial(self._gradient, chunk, hooks))
            if keep:
                self._graphs.append(_edges(gradient))
            losses.append(loss)
            total = total + flatten(g.detach() for g in gradient)
        if losses and self.all_reduce is None:  # another process must not wait for this one
            require_finite(losses, self._summed)
        self._gradient_sum, self._summed = total, max(end, self._summed)
        return total

    def _product(self, v: Tensor, see: Callable[[int, Tensor], None] | None = None) -> Tensor:
        """The sum over the chunks of this process."""
        if not self.chunks:
            return v.new_zeros(self.dim)
        vs = unflatten(v, self.params)
        indices = self.shard(range(len(self.all_chunks)))

        def part(position: int) -> Tensor:
            product = run_isolated(self.chunks[position], partial(self._chunk_product, position, vs))
            if see:
                see(indices[position], product)
            return product

        return reduce(Tensor.add_, map(part, range(len(self.chunks))))

    def _gradient(
        self, chunk: ChunkLoss, hooks: AbstractContextManager[None] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """L_c and ∇L_c with its graph."""
        # Around the backward as well: checkpointed parts run again there.
        with second_derivatives(), explain_missing_derivative(), hooks or nullcontext():
            loss = chunk()
            if self.graph is None:
                self.graph = LossGraph.of(loss)
            return loss.detach(), torch.autograd.grad(
                loss, self.params, create_graph=True, materialize_grads=True
            )

    def _chunk_product(self, index: int, vs: Sequence[Tensor]) -> Tensor:
        """∇²L_c v, [d]."""
        kept = index < len(self._graphs)
        edges = self._graphs[index] if kept else _edges(self._gradient(self.chunks[index])[1])
        pairs = [(g, v) for g, v in zip(edges, vs, strict=True) if g is not None]
        if not pairs:
            return torch.zeros(self.dim, dtype=vs[0].dtype, device=vs[0].device)
        outputs, seeds = zip(*pairs, strict=True)
        with second_derivatives(), explain_missing_derivative():
            return flatten(
                torch.autograd.grad(outputs, self.params, seeds, retain_graph=kept, materialize_grads=True)
            )


def chunk_gradient(chunk: ChunkLoss, params: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """L_c, a scalar, and ∇L_c [d], without a graph."""

    def work() -> tuple[Tensor, Tensor]:
        with second_derivatives(), explain_missing_derivative():
            loss = chunk()
            gradient = torch.autograd.grad(loss, tuple(params), materialize_grads=True)
        return loss.detach(), flatten(gradient)

    return run_isolated(chunk, work)


def require_finite(losses: Sequence[Tensor], first: int = 0) -> None:
    """Refuse losses of chunks, scalars, that are not finite; the first one is that of the chunk `first`.

    Raises:
        FloatingPointError: names the first one.
    """
    for index, value in enumerate(torch.stack([loss.double() for loss in losses]).tolist(), first):
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of chunk {index} is {value}: there is no sharpness here.")


def _edges(gradient: Sequence[Tensor]) -> list[GradientEdge | None]:
    """The graph of each gradient without its values; None if it is constant in w, as for an unused tensor."""
    return [get_gradient_edge(g) if g.requires_grad else None for g in gradient]
