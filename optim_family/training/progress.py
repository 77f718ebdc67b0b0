"""The events of a run, and the listener that displays override."""

from typing import Any


class ProgressListener:
    """Receives the events of a run and ignores them; a display overrides those that it shows."""

    def on_start(self, total_steps: int, start: int) -> None:
        """The run starts at step `start`, which is not 0 when it is resumed."""

    def on_step(self, step: int, loss: float) -> None:
        """`step` steps are done; `loss` is the last training loss that was read: on a GPU every tenth is."""

    def on_product(self) -> None:
        """A Hessian-vector product of a measurement begins."""

    def on_record(self, record: dict[str, Any]) -> None:
        """A record was written, as it stands in metrics.jsonl."""

    def on_message(self, text: str) -> None:
        """A message for the user, in one line."""

    def on_end(self) -> None:
        """The last event, also after an error."""
