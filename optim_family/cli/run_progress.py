"""Show the progress of a run on stderr: a bar in a terminal, plain lines elsewhere."""

import math
import os
import sys
import time
from contextlib import AbstractContextManager
from typing import Any, Final, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from optim_family.runs.labels import facts
from optim_family.training.progress import ProgressListener

_EVERY: Final = 5.0  # seconds between two plain lines


def listener(title: str, quiet: bool) -> ProgressListener:
    """The display for stderr; its first line is the title."""
    if quiet:
        return ProgressListener()
    return Bar(title) if can_redraw() else Lines(title)


def can_redraw() -> bool:
    """Whether stderr is a terminal that can redraw lines."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@final
class Lines(ProgressListener):
    """A line on stderr every few seconds at most: a record, or how far training or a measurement is.

    Remembers the last record, and the time of the last line.
    """

    def __init__(self, title: str) -> None:
        self._title = title

    def on_start(self, total_steps: int, start: int) -> None:
        """Print the title and start the clock."""
        self.on_message(self._title)
        self._total, self._start, self._start_time = total_steps, start, time.monotonic()
        self._printed, self._pending = -_EVERY, ""
        self._step, self._products = start, 0

    def on_step(self, step: int, loss: float) -> None:
        """Print the step if nothing was printed for a while."""
        self._step = step
        self._print_if_due(f"step {step}/{self._total}")

    def on_product(self) -> None:
        """Print the number of products if nothing was printed for a while."""
        self._products += 1
        self._print_if_due(f"step {self._step}/{self._total}, measuring: {self._products} HVPs")

    def on_record(self, record: dict[str, Any]) -> None:
        """Print it, or keep it for the end."""
        steps_done, steps_left = record["step"] - self._start, self._total - record["step"]
        parts = [f"step {record['step']}/{self._total}", facts(record)]
        if steps_done and steps_left and record.get("train_loss"):
            parts.append(f"{duration((time.monotonic() - self._start_time) / steps_done * steps_left)} left")
        self._pending, self._products = "  ".join(parts), 0
        self._print_if_due(self._pending)

    def on_message(self, text: str) -> None:
        """Print it."""
        print(text, file=sys.stderr, flush=True)

    def on_end(self) -> None:
        """Print the last record, unless it is printed already."""
        if self._pending:
            self.on_message(self._pending)
        self._pending = ""

    def _print_if_due(self, text: str) -> None:
        if time.monotonic() - self._printed >= _EVERY:
            self.on_message(text)
            self._printed = time.monotonic()
            self._pending = "" if text == self._pending else self._pending


@final
class Bar(ProgressListener):
    """A bar with steps and time left, the numbers below it, on stderr. Remembers the last numbers."""

    def __init__(self, title: str) -> None:
        self._title, self._numbers, self._products = title, "", 0
        columns = TextColumn("step"), MofNCompleteColumn(), BarColumn(None), TimeRemainingColumn()
        self._progress = Progress(*columns, TextColumn("left"), speed_estimate_period=300)
        self._console = Console(stderr=True)
        self._live = Live(
            get_renderable=lambda: Group(self._progress, Text(self._shown())),
            console=self._console,
            refresh_per_second=4,
            redirect_stdout=False,
        )

    def on_start(self, total_steps: int, start: int) -> None:
        """Show the title and an empty bar."""
        self.on_message(self._title)
        self._task = self._progress.add_task("", total=total_steps, completed=start)
        self._live.start()

    def on_step(self, step: int, loss: float) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=step)

    def on_product(self) -> None:
        """Show how far the measurement is."""
        self._products += 1

    def on_record(self, record: dict[str, Any]) -> None:
        """Show its numbers."""
        self._numbers, self._products = facts(record), 0

    def on_message(self, text: str) -> None:
        """Print it above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def on_end(self) -> None:
        """Leave the bar as it is."""
        self._live.stop()

    def _shown(self) -> str:
        measuring = f"  measuring: {self._products} HVPs" if self._products else ""
        return self._numbers + measuring


@final
class LifeSign(AbstractContextManager["LifeSign"]):
    """Says what a command is doing: in one line of a terminal, elsewhere in a line every few seconds at most.

    Remembers the time of the last line.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._printed = quiet, -math.inf
        self._status = Console(stderr=True).status("") if can_redraw() and not quiet else None

    def __call__(self, text: str) -> None:
        """Show the text."""
        if self._status:
            self._status.update(Text(text))
            self._status.start()
        elif not self._quiet and time.monotonic() - self._printed >= _EVERY:
            print(text, file=sys.stderr, flush=True)
            self._printed = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        if self._status:
            self._status.stop()


def duration(seconds: float) -> str:
    """A time in words, in the largest unit that it fills.

    >>> duration(5), duration(130), duration(7300)
    ('5 s', '2 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
