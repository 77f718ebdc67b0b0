"""Record what Lightning trains.

Trainer(callbacks=[RecorderCallback(loss_fn, chunks, every=50)]).fit(model, loader)

Source: the hooks of lightning.pytorch.callbacks.Callback.
"""

from collections.abc import Callable, Iterable
from typing import Any, final

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from optim_family.callbacks.recorder import Recorder


@final
class RecorderCallback(Callback):
    """A `Recorder` for the length of a fit; remembers it, and how many steps the optimizer has taken.

    Args:
        loss_fn: the mean loss of one chunk, from (model(x), y).
        chunks: pairs (x, y), or triples (x, y, n) with n examples.
        **options: those of `Recorder`: every, out, views, rtol, name, seed, ….

    Raises:
        ValueError: when the fit begins, if the module has more than one optimizer.
    """

    def __init__(
        self, loss_fn: Callable[[Any, Any], Tensor], chunks: Iterable[tuple[Any, ...]], **options: Any
    ) -> None:
        self.loss_fn, self.chunks, self.options, self.steps = loss_fn, list(chunks), options, 0
        self.recorder: Recorder | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first record."""
        if len(trainer.optimizers) != 1:
            raise ValueError(f"a recorder follows one optimizer; the module has {len(trainer.optimizers)}.")
        self.recorder = Recorder(pl_module, trainer.optimizers[0], self.loss_fn, self.chunks, **self.options)
        self.steps = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record a step, unless gradients are still being accumulated."""
        if self.recorder and trainer.global_step > self.steps:
            self.steps = trainer.global_step
            self.recorder.step(loss=_loss(outputs))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run."""
        if self.recorder:
            self.recorder.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the run with the status `failed`."""
        if self.recorder:
            self.recorder.close("failed")


def _loss(outputs: Any) -> float | None:
    """The loss of the batch, if the module returns it."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return float(loss) if isinstance(loss, Tensor) else None
