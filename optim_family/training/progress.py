"""What a run says of its progress while it trains."""

from typing import Any


class ProgressListener:
    """Told what a run does; this one does nothing about it, displays override what they show."""

    def on_start(self, total_steps: int, start: int) -> None:
        """The run starts at step `start`, which is not 0 when it is resumed."""

    def on_step(self, step: int, loss: float) -> None:
        """So many steps are done; the training loss before the last of them."""

    def on_record(self, record: dict[str, Any]) -> None:
        """A record was written, as it stands in metrics.jsonl."""

    def on_message(self, text: str) -> None:
        """Something that is said once."""

    def on_end(self) -> None:
        """Nothing more will come; called whatever happened."""
