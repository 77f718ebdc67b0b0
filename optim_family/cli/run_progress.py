"""What a run looks like while it goes on: a bar in a terminal, a plain line now and then elsewhere."""

import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Final, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from optim_family.training.progress import ProgressListener

_EVERY: Final = 5.0  # seconds between two plain lines


def listener(title: str, quiet: bool) -> ProgressListener:
    """The display that suits stderr; it begins with the title."""
    if quiet:
        return ProgressListener()
    return Bar(title) if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Lines(title)


@final
class Lines(ProgressListener):
    """A line for a record, at most every few seconds, on stderr. Remembers the last record and its time."""

    def __init__(self, title: str) -> None:
        self._title = title

    def on_start(self, total_steps: int, start: int) -> None:
        """Print the title and start the clock."""
        self.on_message(self._title)
        self._total, self._start, self._begun = total_steps, start, time.monotonic()
        self._printed, self._waiting = -_EVERY, ""

    def on_record(self, record: dict[str, Any]) -> None:
        """Print it, or keep it for the end."""
        self._waiting = f"step {record['step']}/{self._total}  {'  '.join(facts(record))}{self._left(record)}"
        if time.monotonic() - self._printed >= _EVERY:
            self._print()

    def on_message(self, text: str) -> None:
        """Print it."""
        print(text, file=sys.stderr)

    def on_end(self) -> None:
        """Print the last record."""
        self._print()

    def _print(self) -> None:
        if self._waiting:
            print(self._waiting, file=sys.stderr, flush=True)
        self._printed, self._waiting = time.monotonic(), ""

    def _left(self, record: dict[str, Any]) -> str:
        done, left = record["step"] - self._start, self._total - record["step"]
        if not (done and left and record.get("train_loss")):
            return ""
        return f"  {duration((time.monotonic() - self._begun) / done * left)} left"


@final
class Bar(ProgressListener):
    """A bar with steps and time left, the numbers below it, on stderr. Remembers the last numbers."""

    def __init__(self, title: str) -> None:
        self._title, self._numbers = title, ""
        ends = TimeRemainingColumn(), TextColumn("left")
        self._progress = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(None), *ends, speed_estimate_period=300
        )
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
        self._numbers = "  ".join(facts(record))

    def on_message(self, text: str) -> None:
        """Print it above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def on_end(self) -> None:
        """Leave the bar as it is."""
        self._live.stop()


def facts(record: dict[str, Any]) -> Iterator[str]:
    """The numbers of a record that a reader wants: loss, accuracies, each view's ratio to its threshold."""
    loss = record.get("train_loss")
    yield "loss not finite" if loss is None else f"loss {loss:.3g}"
    for half in ("train", "test"):
        accuracy = record.get(f"{half}_accuracy")
        if accuracy is not None:
            yield f"{half} {accuracy:.1%}"
    for name, reading in record.get("views", {}).items():
        ratio = (reading or {}).get("ratio")
        if ratio is not None:
            yield f"{name} ratio {ratio:.2f}"


def duration(seconds: float) -> str:
    """A time in words, no finer than it deserves.

    >>> duration(5), duration(130), duration(7300)
    ('5 s', '2 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
