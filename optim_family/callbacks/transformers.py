"""Record what the Trainer of transformers trains.

Trainer(model, …, callbacks=[RecorderCallback(batches, every=50)]).train()

A measurement replaces torch's fused attention by its plain kernel. Attention of other packages, such as
`flash_attention_2`, has no second derivatives: load such a model with `attn_implementation="sdpa"`.

Source: the events of transformers.TrainerCallback.
"""

from collections.abc import Iterable, Mapping
from typing import Any, final

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from optim_family.callbacks.recorder import Recorder


@final
class RecorderCallback(TrainerCallback):
    """A `Recorder` for the length of a training; remembers it.

    Args:
        batches: inputs of the model, {"input_ids": …, "labels": …, …}; the loss is the model's own.
        **options: those of `Recorder`: every, out, views, rtol, name, seed, ….

    Raises:
        KeyError: a batch has no labels.
    """

    def __init__(self, batches: Iterable[Mapping[str, Any]], **options: Any) -> None:
        self.chunks = [(batch, batch["labels"]) for batch in batches]
        self.options = options
        self.recorder: Recorder | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The first record, in training mode."""
        model, optimizer = kwargs["model"].train(), kwargs["optimizer"]
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        self.recorder = Recorder(model, inner, its_own_loss, self.chunks, **self.options)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record a step of the optimizer."""
        if self.recorder:
            self.recorder.step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run."""
        if self.recorder:
            self.recorder.close()


def its_own_loss(outputs: Any, labels: Any) -> Tensor:
    """The loss that the model computes if its inputs have labels."""
    loss: Tensor = outputs.loss
    return loss
