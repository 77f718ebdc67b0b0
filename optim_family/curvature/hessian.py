"""The Hessian of a loss over fixed chunks, as an operator: exact products by double backward.

L(w) = Σ_c L_c(w) with one closure for each chunk. Differentiating ⟨∇L_c, v⟩ once more gives ∇²L_c v.
The graph of ∇L_c is kept between products where memory allows (a product then costs between one and
two gradients), or built again for each product (one more). Double backward is the one composition that
torch gets right through a BatchNorm in training mode with trained affine parameters; those of
`second_order` are the same in fewer passes.

Source: B. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, Literal, TypeVar, final

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks
from torch.func import functional_call

from optim_family.curvature.double_backward import fast_second_derivatives
from optim_family.operators import SymmetricOperator
from optim_family.space import flatten, unflatten

ChunkLoss = Callable[[], Tensor]
Mode = Literal["retained", "rebuilt"]
T = TypeVar("T")

# Share of the free memory that retained graphs may take: products and the basis need the rest.
MEMORY_SHARE = 0.4


@final
class Hessian(SymmetricOperator):
    """∇²L at the present weights [d, d]; remembers the graphs of ∇L_c in mode `retained`.

    Args:
        chunks: closures that return L_c, a scalar with a graph; each gives the same value every time.
        params: the tensors that w consists of, in order.
        mode: keep the graphs, or build them for every product; chosen by `plan` if not given. Where the
            memory does not suffice for the graphs after all, `mode` becomes `rebuilt`.
        total: adds up the products of all who have a share of the chunks, [d] → [d]; if None, all are here.
    """

    def __init__(
        self,
        chunks: Sequence[ChunkLoss],
        params: Sequence[Tensor],
        mode: Mode | None = None,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.chunks, self.params = tuple(chunks), tuple(params)
        self.dim = sum(p.numel() for p in self.params)
        self.mode, self.total = mode or plan(self.chunks, self.params), total
        self._graphs: list[list[GradientEdge | None]] | None = None
        self._slope: Tensor | None = None
        if self.mode == "retained":
            self._thriftily(self._retain)

    def apply(self, v: Tensor) -> Tensor:
        """∇²L v, [d] → [d]."""
        product = self._thriftily(partial(self._product, v))
        return self.total(product) if self.total else product

    def gradient(self) -> Tensor:
        """∇L, [d]; where graphs are kept it came with them."""
        if self._slope is None:
            self._slope = self._descent()
        return self.total(self._slope) if self.total else self._slope

    def _thriftily(self, work: Callable[[], T]) -> T:
        """Do it; if that takes more memory than there is, drop the graphs for good and do it again."""
        try:
            return work()
        except RuntimeError as error:
            if self.mode == "rebuilt" or not out_of_memory(error):
                raise
        self.mode, self._graphs = "rebuilt", None
        if self.params[0].is_cuda:
            torch.cuda.empty_cache()
        return work()

    def _retain(self) -> None:
        if self.mode == "retained":
            graphs: list[list[GradientEdge | None]] = []
            self._slope = self._descent(graphs)
            self._graphs = graphs

    def _descent(self, graphs: list[list[GradientEdge | None]] | None = None) -> Tensor:
        """∇L over the chunks here, [d]; its graphs are put into the list, if there is one."""
        slope = torch.zeros(self.dim, dtype=self.params[0].dtype, device=self.params[0].device)
        for chunk in self.chunks:
            gradient = self._gradient(chunk)
            slope += flatten(g.detach() for g in gradient)
            if graphs is not None:
                graphs.append(_edges(gradient))
        return slope

    def _product(self, v: Tensor) -> Tensor:
        vs = unflatten(v, self.params)
        graphs = self._graphs or (_edges(self._gradient(chunk)) for chunk in self.chunks)
        return reduce(Tensor.add_, (self._differentiate(graph, vs) for graph in graphs))

    def _gradient(self, chunk: ChunkLoss) -> tuple[Tensor, ...]:
        with fast_second_derivatives():  # around the backward as well: checkpointed parts run again there
            return torch.autograd.grad(chunk(), self.params, create_graph=True, materialize_grads=True)

    def _differentiate(self, gradient: list[GradientEdge | None], vs: Sequence[Tensor]) -> Tensor:
        pairs = [(g, v) for g, v in zip(gradient, vs, strict=True) if g is not None]
        if not pairs:
            return torch.zeros(self.dim, dtype=vs[0].dtype, device=vs[0].device)
        outputs, seeds = zip(*pairs, strict=True)
        retain = self._graphs is not None
        with fast_second_derivatives():
            return flatten(
                torch.autograd.grad(outputs, self.params, seeds, retain_graph=retain, materialize_grads=True)
            )


def _edges(gradient: Sequence[Tensor]) -> list[GradientEdge | None]:
    """The graph of each without the numbers; what is constant in w, as for an unused tensor, has none."""
    return [get_gradient_edge(g) if g.requires_grad else None for g in gradient]


def plan(chunks: Sequence[ChunkLoss], params: Sequence[Tensor]) -> Mode:
    """`retained` if the graphs of all chunks fit the free memory, judged by the first chunk."""
    needed = len(chunks) * graph_bytes(chunks[0], params)
    return "retained" if needed <= MEMORY_SHARE * free_bytes(params[0].device) else "rebuilt"


def graph_bytes(chunk: ChunkLoss, params: Sequence[Tensor]) -> int:
    """Bytes that the graph of one chunk's gradient keeps alive, the weights left out."""
    sizes: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t.detach()  # keeping the tensor itself would make a reference cycle

    with fast_second_derivatives(), saved_tensors_hooks(pack, lambda t: t):
        torch.autograd.grad(chunk(), tuple(params), create_graph=True, materialize_grads=True)
    weights = {p.untyped_storage().data_ptr() for p in params}
    return sum(size for pointer, size in sizes.items() if pointer not in weights)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: a class of its own on a GPU, a message on a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free_bytes(device: torch.device) -> int:
    """Memory that could still be taken on a device, in bytes."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def chunk_losses(
    model: nn.Module, loss_fn: Callable[[Any, Any], Tensor], chunks: Iterable[tuple[Any, Any]]
) -> list[ChunkLoss]:
    """Closures L_c = (n_c / n) · loss_fn(model(x_c), y_c) that leave the model as it is.

    The model runs in its present mode on copies of its buffers, and random layers draw the same
    numbers every time, so that a closure is a fixed function of the weights. A tuple or list x is given as
    positional arguments, a dictionary as keywords; n_c is the length of the first tensor of y.

    Raises:
        ValueError: there are no chunks, or no examples in them; later, a loss that is not one number.
    """
    with torch.random.fork_rng(devices=[]):  # a DataLoader draws a number, even without shuffling
        data = list(chunks)
    if not data:
        raise ValueError("there is nothing to measure on: `chunks` gave no (x, y) pair.")
    counts = [_count(y) for _, y in data]
    if not sum(counts):
        raise ValueError("there is nothing to measure on: the chunks hold no examples.")
    seed = torch.initial_seed()

    def closure(index: int) -> Tensor:
        x, y = data[index]
        with torch.random.fork_rng(devices=_cuda_devices(model)):
            torch.default_generator.manual_seed(seed + index)
            for device in _cuda_devices(model):  # torch.manual_seed would reseed the other devices for good
                torch.cuda.default_generators[device.index].manual_seed(seed + index)
            buffers = {name: b.clone() for name, b in model.named_buffers()}
            args, kwargs = _arguments(x)
            loss = loss_fn(functional_call(model, buffers, args, kwargs), y)
        if loss.numel() != 1:
            raise ValueError(
                f"loss_fn must give the mean loss of a chunk, one number; got {list(loss.shape)}."
            )
        return counts[index] / sum(counts) * loss

    return [partial(closure, index) for index in range(len(data))]


def _arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a model is called with."""
    if isinstance(x, Mapping):
        return (), dict(x)
    return (tuple(x) if isinstance(x, tuple | list) else (x,)), {}


def _count(y: Any) -> int:
    """Examples of a chunk."""
    if isinstance(y, Mapping):
        y = next(iter(y.values()))
    return len(y[0] if isinstance(y, tuple | list) and isinstance(y[0], Tensor) else y)


def _cuda_devices(model: nn.Module) -> list[torch.device]:
    return list({p.device for p in model.parameters() if p.device.type == "cuda"})
