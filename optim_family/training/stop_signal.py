"""A stop request raised by a signal, so that a run saves a checkpoint before it ends."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, final

from optim_family.errors import Interrupted, Stopped

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
# A terminal signals a process group, whose launcher forwards the signal: two signals, one request.
DUPLICATE_SIGNAL_SECONDS: Final = 1.0


@final
class StopSignal:
    """A stop request raised by a signal and honoured at the next `check()`; remembers signal and time.

    Schedulers announce the end of a job by SIGTERM, SIGUSR1 or SIGUSR2, a terminal by SIGINT. After a second
    signal the process exits at once and loses what is not in a checkpoint.

    Args:
        acknowledgement: printed on stderr at the first signal, unless empty.
    """

    def __init__(self, acknowledgement: str = "") -> None:
        self.signal: int | None = None
        self._since, self._acknowledgement = 0.0, acknowledgement

    @contextmanager
    def install(self) -> Iterator["StopSignal"]:
        """Handle the signals inside the context; does nothing outside the main thread, as Python requires."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise Stopped, or Interrupted after SIGINT, if there is a stop request."""
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            raise self._kind(
                f"stopped by {name}; a checkpoint is left; repeat the command with --resume to continue"
            )

    @property
    def _kind(self) -> type[Stopped]:
        return Interrupted if self.signal == signal.SIGINT else Stopped

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
            if self._acknowledgement:  # not by print, which the signal may have interrupted
                os.write(2, f"{self._acknowledgement}\n".encode())
        elif time.monotonic() - self._since >= DUPLICATE_SIGNAL_SECONDS:
            sys.exit(self._kind.exit_code)
