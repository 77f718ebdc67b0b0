"""Show the progress of a study on stderr: a live table in a terminal, plain lines elsewhere."""

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
from optim_family.study.launchers import Job, JobResult

HEADERS: Final = ("run", "state", "step", "left", "last record")
REFRESH_SECONDS: Final = 1.0  # of the live table
LINE_SECONDS: Final = 20.0  # between two plain lines
_ORDER: Final = ("running", "failed", "stopped", "waiting", "diverged", "done")
_STYLES: Final = {"running": "bold", "failed": "red", "diverged": "yellow", "done": "green"}


@final
class Progress:
    """The states of all runs of a study. Remembers which runs are finished and which failed."""

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        self.jobs, self.workers = jobs, workers
        self.names = dict(zip(jobs, labels([job.spec.model_dump(mode="json") for job in jobs]), strict=True))
        self.states: dict[Job, State] = {}
        self.failed: set[Job] = set()

    def refresh_states(self) -> list[State]:
        """Read the states again; running runs come first."""
        for job in self.jobs:
            if job not in self.states or self.states[job].status not in FINISHED:
                self.states[job] = execution.state(job)
        return sorted(self.states.values(), key=lambda state: _ORDER.index(self.status(state)))

    def status(self, state: State) -> str:
        """The status in the run directory; `failed` if the process of the run has just failed."""
        return "failed" if state.job in self.failed and state.status not in FINISHED else state.status

    def row(self, state: State) -> list[str]:
        """One row of the table."""
        status = self.status(state)
        left = _left(state) if status == "running" else None
        record = "  ".join(facts(state.record)) if state.record else ""
        steps = f"{state.step:,}/{state.job.spec.steps:,}"
        return [self.names[state.job], status, steps, duration(left) if left else "", record]

    def headline(self) -> str:
        """`3 of 11 finished, 2 running, 1 failed, 3 min left`."""
        states = self.refresh_states()
        counts = [(name, sum(self.status(s) == name for s in states)) for name in ("running", "failed")]
        parts = [f"{sum(s.status in FINISHED for s in states)} of {len(states)} finished"]
        parts += [f"{count} {name}" for name, count in counts if count]
        if left := self._left(states):
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)

    def _left(self, states: Sequence[State]) -> float | None:
        """Seconds left, at the mean pace so far."""
        timed = [s for s in states if s.record.get("step") and s.record.get("elapsed")]
        if not timed:
            return None
        pace: float = sum(s.record["elapsed"] for s in timed) / sum(s.record["step"] for s in timed)
        unfinished = (s for s in states if s.status not in FINISHED)
        return pace * sum(s.job.spec.steps - s.step for s in unfinished) / self.workers


class Board(ABC):
    """A display of the progress of a study; a context manager that closes it."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    @abstractmethod
    def refresh(self) -> None:
        """Update the display if its interval is over; called at every poll."""

    def on_result(self, result: JobResult) -> None:
        """Print a line if the run of a process that ended has failed."""
        if execution.has_failed(result):
            self.progress.failed.add(result.job)
            self.log(
                f"{self.progress.names[result.job]}: {result.message or f'exit code {result.exit_code}'}"
            )

    def log(self, text: str) -> None:
        """Print a line that stays."""
        print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Show the final state."""


@final
class Silent(Board):
    """Prints failures only."""

    def refresh(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@final
class Lines(Board):
    """Prints the headline and the running runs from time to time. Remembers when it last did."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress)
        self._last = -LINE_SECONDS

    def refresh(self) -> None:
        """Print if the interval is over."""
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            self.log(self.progress.headline())
            for state in self.progress.refresh_states():
                if state.status == "running":
                    self.log("  " + "  ".join(filter(None, self.progress.row(state))))

    def close(self) -> None:
        """Print the headline."""
        self.log(self.progress.headline())


@final
class Screen(Board):
    """A table that is redrawn every second. Remembers when it last was."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress)
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
        self._last = -REFRESH_SECONDS
        self._live.start()

    def refresh(self) -> None:
        """Draw if the interval is over."""
        if time.monotonic() - self._last >= REFRESH_SECONDS:
            self._last = time.monotonic()
            self._live.update(Group(self._table(), Text(self.progress.headline())), refresh=True)

    def _table(self) -> Table:
        """As many runs as fit on the screen."""
        table = Table(*HEADERS, box=None, pad_edge=False, header_style="bold")
        for state in self.progress.refresh_states()[: max(1, self._console.height - 4)]:
            table.add_row(*self.progress.row(state), style=_STYLES.get(self.progress.status(state)))
        return table

    def log(self, text: str) -> None:
        """Print it above the table."""
        self._console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Draw a last time."""
        self._last = -REFRESH_SECONDS
        self.refresh()
        self._live.stop()


def board(progress: Progress, quiet: bool) -> Board:
    """Choose the display that suits stderr."""
    if quiet:
        return Silent(progress)
    return Screen(progress) if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Lines(progress)


def _left(state: State) -> float | None:
    elapsed, step = (state.record.get(name) for name in ("elapsed", "step"))
    return elapsed / step * (state.job.spec.steps - step) if elapsed and step else None
