"""What a study looks like while it goes on: a live table in a terminal, plain lines elsewhere, on stderr."""

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from optim_family.cli.run_progress import duration, facts
from optim_family.runs.labels import labels
from optim_family.study import execution
from optim_family.study.execution import FINISHED, State
from optim_family.study.launchers import Ending, Job

HEADERS: Final = ("run", "state", "step", "left", "last record")
_LOOK: Final = 1.0  # seconds between two looks at the runs
_LINES: Final = 20.0  # seconds between two plain lines
_ORDER: Final = ("running", "failed", "stopped", "waiting", "diverged", "done")
_STYLES: Final = {"running": "bold", "failed": "red", "diverged": "yellow", "done": "green"}


@final
class Progress:
    """How far all runs of a study are: remembers those that are finished, and those that failed."""

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        self.jobs, self.workers = jobs, workers
        self.names = dict(zip(jobs, labels([job.spec.model_dump(mode="json") for job in jobs]), strict=True))
        self.states: dict[Job, State] = {}
        self.failed: set[Job] = set()

    def look(self) -> list[State]:
        """Their states, those first that somebody works on."""
        for job in self.jobs:
            if job not in self.states or self.states[job].status not in FINISHED:
                self.states[job] = execution.state(job)
        return sorted(self.states.values(), key=lambda state: _ORDER.index(self.status(state)))

    def status(self, state: State) -> str:
        """As the directory tells, but that of a run which has just failed."""
        return "failed" if state.job in self.failed and state.status not in FINISHED else state.status

    def row(self, state: State) -> list[str]:
        """A line of the table."""
        status = self.status(state)
        left = _left(state) if status == "running" else None
        told = "  ".join(facts(state.record)) if state.record else ""
        steps = f"{state.step:,}/{state.job.spec.steps:,}"
        return [self.names[state.job], status, steps, duration(left) if left else "", told]

    def headline(self) -> str:
        """`3 of 11 finished, 2 running, 1 failed, 3 min left`."""
        states = self.look()
        counts = [(name, sum(self.status(s) == name for s in states)) for name in ("running", "failed")]
        told = [f"{sum(s.status in FINISHED for s in states)} of {len(states)} finished"]
        told += [f"{count} {name}" for name, count in counts if count]
        if left := self._left(states):
            told.append(f"{duration(left)} left")
        return ", ".join(told)

    def _left(self, states: Sequence[State]) -> float | None:
        """Seconds, at the mean pace so far."""
        done = [s for s in states if s.record.get("step") and s.record.get("elapsed")]
        if not done:
            return None
        pace: float = sum(s.record["elapsed"] for s in done) / sum(s.record["step"] for s in done)
        open_ones = (s for s in states if s.status not in FINISHED)
        return pace * sum(s.job.spec.steps - s.step for s in open_ones) / self.workers


class Board(ABC):
    """Shows the progress of a study; a context manager, for what is to be tidied up."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    @abstractmethod
    def tick(self) -> None:
        """Called often."""

    def tell(self, ending: Ending) -> None:
        """A process has ended; a line about it if its run failed."""
        if execution.has_failed(ending):
            self.progress.failed.add(ending.job)
            self.say(f"{self.progress.names[ending.job]}: {ending.words or f'exit code {ending.code}'}")

    @abstractmethod
    def say(self, text: str) -> None:
        """A line that stays."""

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Leave the screen as it is."""


@final
class Silent(Board):
    """Tells of failures only."""

    def tick(self) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Print it."""
        print(text, file=sys.stderr)

    def close(self) -> None:
        """Nothing."""


@final
class Lines(Board):
    """The headline and the runs that somebody works on, now and then. Remembers when it last printed."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress)
        self._last = -_LINES

    def tick(self) -> None:
        """Print, if it is time."""
        if time.monotonic() - self._last >= _LINES:
            self._last = time.monotonic()
            self.say(self.progress.headline())
            for state in self.progress.look():
                if state.status == "running":
                    self.say("  " + "  ".join(filter(None, self.progress.row(state))))

    def say(self, text: str) -> None:
        """Print it."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """The last word."""
        self.say(self.progress.headline())


@final
class Screen(Board):
    """A table that is drawn again every second. Remembers when."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress)
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
        self._last = -_LOOK
        self._live.start()

    def tick(self) -> None:
        """Draw, if it is time."""
        if time.monotonic() - self._last >= _LOOK:
            self._last = time.monotonic()
            self._live.update(Group(self._table(), Text(self.progress.headline())), refresh=True)

    def _table(self) -> Table:
        """As many runs as fit the screen."""
        table = Table(*HEADERS, box=None, pad_edge=False, header_style="bold")
        for state in self.progress.look()[: max(1, self._console.height - 4)]:
            table.add_row(*self.progress.row(state), style=_STYLES.get(self.progress.status(state)))
        return table

    def say(self, text: str) -> None:
        """Print it above the table."""
        self._console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Draw once more."""
        self._last = -_LOOK
        self.tick()
        self._live.stop()


def board(progress: Progress, quiet: bool) -> Board:
    """The display that suits stderr."""
    if quiet:
        return Silent(progress)
    return Screen(progress) if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Lines(progress)


def _left(state: State) -> float | None:
    elapsed, step = (state.record.get(name) for name in ("elapsed", "step"))
    return elapsed / step * (state.job.spec.steps - step) if elapsed and step else None
