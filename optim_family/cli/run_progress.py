"""Show the progress of a run on stderr: a bar in a terminal, plain lines elsewhere."""

import os
import sys
import time
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
    """A line for a record, at most every few seconds, on stderr. Remembers the last record and its time."""

    def __init__(self, title: str) -> None:
        self._title = title

    def on_start(self, total_steps: int, start: int) -> None:
        """Print the title and start the clock."""
        self.on_message(self._title)
        self._total, self._start, self._start_time = total_steps, start, time.monotonic()
        self._printed, self._pending = -_EVERY, ""

    def on_record(self, record: dict[str, Any]) -> None:
        """Print it, or keep it for the end."""
        steps_done, steps_left = record["step"] - self._start, self._total - record["step"]
        parts = [f"step {record['step']}/{self._total}", facts(record)]
        if steps_done and steps_left and record.get("train_loss"):
            parts.append(f"{duration((time.monotonic() - self._start_time) / steps_done * steps_left)} left")
        self._pending = "  ".join(parts)
        if time.monotonic() - self._printed >= _EVERY:
            self.on_end()

    def on_message(self, text: str) -> None:
        """Print it."""
        print(text, file=sys.stderr, flush=True)

    def on_end(self) -> None:
        """Print the last record, unless it is printed already."""
        if self._pending:
            self.on_message(self._pending)
        self._printed, self._pending = time.monotonic(), ""


@final
class Bar(ProgressListener):
    """A bar with steps and time left, the numbers below it, on stderr. Remembers the last numbers."""

    def __init__(self, title: str) -> None:
        self._title, self._numbers = title, ""
        columns = TextColumn("step"), MofNCompleteColumn(), BarColumn(None), TimeRemainingColumn()
        self._progress = Progress(*columns, TextColumn("left"), speed_estimate_period=300)
        self._console = Console(stderr=True)
        self._live = Live(
            get_renderable=lambda: Group(self._progress, Text(self._numbers)),
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

    def on_record(self, record: dict[str, Any]) -> None:
        """Show its numbers."""
        self._numbers = facts(record)

    def on_message(self, text: str) -> None:
        """Print it above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def on_end(self) -> None:
        """Leave the bar as it is."""
        self._live.stop()


def duration(seconds: float) -> str:
    """A time in words, in the largest unit that it fills.

    >>> duration(5), duration(130), duration(7300)
    ('5 s', '2 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
