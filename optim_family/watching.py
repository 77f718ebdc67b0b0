"""How a run is watched from outside, and how it is asked to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

from optim_family.errors import Interrupted, Stopped


class Watcher:
    """Told what a run does; this one does nothing about it, displays override what they show."""

    def begin(self, total_steps: int, start: int) -> None:
        """The run starts at step `start`, which is not 0 when it is resumed."""

    def step(self, step: int, loss: float) -> None:
        """So many steps are done; the training loss before the last of them."""

    def record(self, record: dict[str, Any]) -> None:
        """A record was written, as it stands in metrics.jsonl."""

    def note(self, text: str) -> None:
        """Something that is said once."""

    def end(self) -> None:
        """Nothing more will come; called whatever happened."""


@final
class Stop:
    """A wish to stop, made by SIGTERM or Ctrl-C, obeyed where `check` is called. Remembers the signal.

    A second Ctrl-C does not wait.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def install(self) -> Iterator["Stop"]:
        """Catch both signals inside; outside the main thread, where Python allows none, catch nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Stopped: a signal has come.
        """
        if self.signal is not None:
            kind = Interrupted if self.signal == signal.SIGINT else Stopped
            name = signal.Signals(self.signal).name
            raise kind(f"stopped by {name}; a checkpoint is left, the same command with --resume continues")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
