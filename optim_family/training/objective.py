"""The training loss over fixed ghost batches: its value, its gradient and its Hessian.

    L(w) = Σ_c (n_c / n) · L_c(w)

Examples of one ghost batch share their normalisation statistics, so that the split is part of the loss:
it never changes within a run, and gradient, Hessian and evaluation all use the same. A mini-batch is one or
several whole ghost batches.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from optim_family.curvature import precision
from optim_family.curvature.batch_norm import native_batch_norm
from optim_family.curvature.chunked_loss import ChunkLoss
from optim_family.curvature.double_backward import replace_functions
from optim_family.curvature.hessian import Hessian, KeptGraphs
from optim_family.data.datasets import Dataset
from optim_family.errors import UsageError
from optim_family.space import ParameterSpace, upload
from optim_family.training.evaluation import Batch, Evaluation, LossFunction, evaluate
from optim_family.training.ghost_batch import choose_ghost_batch
from optim_family.training.gradient_replay import GradientReplay
from optim_family.training.process_group import ProcessGroup, SingleProcess
from optim_family.training.spec import Hvp, Loss, MemoryFormat

SAMPLE = 32  # examples of `sample_loss`
KEPT_BYTES = 2**26  # normalised training images are kept in memory up to this size, else made when needed


@final
class Objective:
    """L over the training set; the network is in training mode, and stays there.

    Args:
        model: the network.
        data: on the same device.
        loss: `mse` or `cross-entropy`.
        ghost_batch: examples that share statistics; divides n and the mini-batch. If None, as many as
            that allows, up to 1000.
        batch_size: size of a mini-batch; the full batch if None.
        seed: of the order of the mini-batches.
        hvp: keep the gradient's graph between Hessian-vector products, or rebuild it, as memory allows.
        process_group: the processes that share the ghost batches; a single process if None.
        memory_format: layout of the images; it changes sums by rounding only. If None, the fastest: channels
            last on a CPU, if the network has convolutions and accepts it.
        tf32: compute the gradients of steps in TF32; Hessian-vector products and evaluations stay in float32.

    Attributes:
        hvp: as given; set it to `rebuilt` when the graphs have run out of memory.
        kept_graphs: of the last Hessian; None before the first one.
        replay: replays the gradients of steps as a CUDA graph; None without `use_cuda_graphs`.
        device: of the weights and the data.

    Raises:
        UsageError: no ghost batch fits, or a mini-batch is larger than the training set.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        loss: Loss = "mse",
        ghost_batch: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        hvp: Hvp = "auto",
        process_group: ProcessGroup | None = None,
        memory_format: MemoryFormat | None = None,
        tf32: bool = False,
    ) -> None:
        self.model, self.data, self.space = model.train(), data, ParameterSpace.of(model)
        self.loss_fn: LossFunction = partial(LOSSES[loss], classes=data.classes)
        self.size, self.batch_size, self.seed = len(data.y_train), batch_size, seed
        self.tf32 = tf32
        self.ghost_batch = choose_ghost_batch(self.size, batch_size, ghost_batch)
        self.process_group = process_group or SingleProcess()
        if (chunks := (batch_size or self.size) // self.ghost_batch) < self.process_group.size:
            raise UsageError(
                f"{self.process_group.size} processes cannot share {chunks} ghost batches of "
                f"{self.ghost_batch}; start fewer, or choose a smaller --ghost-batch"
            )
        self._dtype, self.device = self.space.tensors[0].dtype, self.space.tensors[0].device
        self.memory_format: MemoryFormat = memory_format or "channels-last"
        in_memory = data.x_train.numel() * self._dtype.itemsize <= KEPT_BYTES
        self._kept = self._images(data.x_train, slice(None)) if in_memory else None
        if memory_format is None and not self._takes_channels_last():
            self.memory_format = "contiguous"
            self._kept = self._images(data.x_train, slice(None)) if in_memory else None
        self.hvp: Hvp = hvp
        self.kept_graphs: KeptGraphs | None = None
        self._epoch, self._order = -1, torch.empty(0)
        self.replay: GradientReplay | None = None

    def use_cuda_graphs(self) -> None:
        """From now on the gradients of steps are replayed as a CUDA graph, where that changes no bit.

        Raises:
            UsageError: the device is no GPU, or several processes share the run.
        """
        if self.device.type != "cuda" or self.process_group.size > 1:
            place = "several processes" if self.process_group.size > 1 else f"the device {self.device}"
            raise UsageError(f"CUDA graphs need one process on a GPU; got {place}: leave out --cuda-graphs")
        share = self.ghost_batch / (self.batch_size or self.size)
        self.replay = GradientReplay(self.model, self.space.tensors, lambda x, y: self._loss_of(x, y) * share)

    def chunk_losses(self) -> list[ChunkLoss]:
        """One closure for each ghost batch, which returns its share of L with a graph."""
        return [partial(self._share, part, self.size) for part in _parts(self.size, self.ghost_batch)]

    def _batch_losses(self, batch: Tensor) -> Sequence[ChunkLoss]:
        """The closures of this process for a mini-batch, given by its indices."""
        parts = torch.split(batch, self.ghost_batch)
        return self.process_group.shard([partial(self._share, part, len(batch)) for part in parts])

    def sample_loss(self) -> Tensor:
        """The loss of a few examples, with a graph: enough to check scale invariance, and cheap."""
        with self._kernels():
            return self._loss(slice(0, min(SAMPLE, self.ghost_batch)))

    def hessian(self) -> Hessian:
        """∇²L over the whole training set [d, d]."""
        group = self.process_group
        hessian = Hessian(
            self.chunk_losses(),
            self.space.tensors,
            self.hvp,
            group.all_reduce_vector,
            group.shard,
            group.processes_per_device,
        )
        self.kept_graphs = hessian.hvp
        return hessian

    def sample_batches(self, count: int, seed: int) -> list[list[ChunkLoss]]:
        """Mini-batches independent of those of the steps, each as the closures of this process.

        Args:
            count: how many; a full batch is a single one.
            seed: of the draw, without replacement within a mini-batch.
        """
        if self.batch_size is None:
            return [[*self.process_group.shard(self.chunk_losses())]]
        generator = torch.Generator().manual_seed(-1 - seed)  # the order of an epoch has a seed ≥ 0
        orders = [torch.randperm(self.size, generator=generator)[: self.batch_size] for _ in range(count)]
        batches = upload(torch.stack(orders), self.device)
        return [[*self._batch_losses(batch)] for batch in batches]

    def gradient(self, step: int, compare: bool = False) -> Tensor:
        """Put the gradient of this step's examples into `.grad`; returns their loss, a scalar.

        Args:
            step: its number, which chooses the mini-batch.
            compare: check that a replayed gradient is bitwise the computed one.
        """
        parts: Sequence[slice | Tensor] = _parts(self.size, self.ghost_batch)
        if self.batch_size:
            parts = torch.split(self._batch(step), self.ghost_batch)
        compute = partial(self._add_gradients, self.process_group.shard(parts))
        with self._kernels(), precision.tf32() if self.tf32 else nullcontext():
            if self.replay:
                examples = [partial(self._examples, part) for part in parts]
                total = self.replay(step, examples, compute, compare)
            else:
                total = compute()
        gradients = [(tensor, tensor.grad) for tensor in self.space.tensors if tensor.grad is not None]
        total, *sums = self.process_group.all_reduce(total, *(gradient for _, gradient in gradients))
        for (tensor, _), gradient in zip(gradients, sums, strict=True):
            tensor.grad = gradient
        return total

    def _add_gradients(self, parts: Sequence[slice | Tensor]) -> Tensor:
        """The sum of the losses of these ghost batches, and that of their gradients in `.grad`."""
        for tensor in self.space.tensors:
            tensor.grad = None
        total = torch.zeros((), dtype=self._dtype, device=self.device)
        for part in parts:
            loss = self._share(part, self.batch_size or self.size)
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def evaluate(self) -> Evaluation:
        """Loss and accuracy; the test sets with statistics recomputed over the training set."""

        def batches(images: Callable[[slice], Tensor], y: Tensor) -> list[Batch]:
            def batch(part: slice) -> tuple[Tensor, Tensor]:
                return images(part), y[part]

            return [partial(batch, part) for part in _parts(len(y), self.ghost_batch)]

        train = batches(self._inputs, self.data.y_train)
        sets = {"": (self.data.x_test, self.data.y_test), **self.data.further_tests}
        tests = {name: batches(partial(self._images, x), y) for name, (x, y) in sets.items()}
        with self._kernels():
            return evaluate(self.model, self.loss_fn, train, tests, self.process_group)

    def _kernels(self) -> AbstractContextManager[None]:
        """On a GPU, batch normalisation with the kernel that Hessian-vector products use."""
        on_gpu = self.device.type == "cuda"
        return replace_functions(batch_norm=native_batch_norm) if on_gpu else nullcontext()

    def _inputs(self, part: slice | Tensor) -> Tensor:
        """Normalised training images, bitwise identical whether they are kept or not."""
        if self._kept is None:
            return self._images(self.data.x_train, part)
        if self.memory_format == "contiguous":
            return self._kept[part]
        # Indexing returns a contiguous result, so that the channels must be the last dimension for it.
        return self._kept.permute(0, 2, 3, 1)[part].permute(0, 3, 1, 2)

    def _images(self, x: Tensor, part: slice | Tensor) -> Tensor:
        """Normalised images of a part, uint8 [n, c, h, w] → [m, c, h, w], in the memory format."""
        images = self.data.images(x[part], self._dtype)
        if self.memory_format == "contiguous":
            return images
        # `contiguous` would not change the strides of images with one channel; `clone` does.
        return images.clone(memory_format=torch.channels_last)

    def _takes_channels_last(self) -> bool:
        """Whether that is the faster layout, and every layer of the network accepts it."""
        convolves = any(isinstance(module, nn.Conv2d) for module in self.model.modules())
        if not convolves or self.data.x_train.device.type != "cpu":
            return False
        try:
            with torch.no_grad():
                self.sample_loss()
        except RuntimeError:  # of a `view` that crosses the strides
            return False
        return True

    def _loss(self, part: slice | Tensor) -> Tensor:
        return self._loss_of(*self._examples(part))

    def _examples(self, part: slice | Tensor) -> tuple[Tensor, Tensor]:
        return self._inputs(part), self.data.y_train[part]

    def _loss_of(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return self.loss_fn(self.model(inputs), labels)

    def _share(self, part: slice | Tensor, of: int) -> Tensor:
        """The loss of one ghost batch, times its fraction of `of` examples."""
        return self._loss(part) * (self.ghost_batch / of)

    def _batch(self, step: int) -> Tensor:
        """Indices of the mini-batch of a step: a function of step and seed, so that a resumed run agrees.

        Every epoch has its own order; an incomplete last batch is dropped.
        """
        assert self.batch_size is not None
        epoch, place = divmod(step, self.size // self.batch_size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(self.size, generator=generator)
            self._epoch, self._order = epoch, upload(order, self.device)
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]


def _parts(size: int, length: int) -> list[slice]:
    """Consecutive slices of this length; the last one may be shorter."""
    return [slice(start, start + length) for start in range(0, size, length)]


def half_squared_error(outputs: Tensor, labels: Tensor, classes: int) -> Tensor:
    """½‖f − y‖² with one-hot y, the mean over the examples: [n, classes], [n] → scalar."""
    targets = functional.one_hot(labels, classes).to(outputs.dtype)
    return 0.5 * (outputs - targets).square().sum(1).mean()


def cross_entropy(outputs: Tensor, labels: Tensor, classes: int) -> Tensor:
    """−log of the probability of the label, the mean over the examples: [n, classes], [n] → scalar."""
    return functional.cross_entropy(outputs, labels)


# Each name of `spec.Loss`, and its function of outputs, labels and the number of classes.
LOSSES: Final[Mapping[Loss, Callable[..., Tensor]]] = {
    "mse": half_squared_error,
    "cross-entropy": cross_entropy,
}
