"""How a run is watched from outside, and how it is asked to stop."""

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
# A terminal signals a whole group, and a launcher in it passes the signal on: one wish, two signals.
ECHO_SECONDS: Final = 1.0


@final
class StopSignal:
    """A wish to stop, made by a signal, obeyed where `check` is called; remembers the signal and its time.

    Schedulers announce the end of a job by SIGTERM, SIGUSR1 or SIGUSR2, a terminal by SIGINT. A second signal
    does not wait: the process exits there and then, as after a kill, which costs what is not in a checkpoint.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0

    @contextmanager
    def install(self) -> Iterator["StopSignal"]:
        """Catch the signals inside; outside the main thread, where Python allows none, catch nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._ask) for number in SIGNALS}
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
            name = signal.Signals(self.signal).name
            raise self._kind(
                f"stopped by {name}; a checkpoint is left, the same command with --resume continues"
            )

    @property
    def _kind(self) -> type[Stopped]:
        return Interrupted if self.signal == signal.SIGINT else Stopped

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
        elif time.monotonic() - self._since >= ECHO_SECONDS:
            sys.exit(self._kind.exit_code)
