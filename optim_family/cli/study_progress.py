"""Show the progress of a study on stderr: a live table in a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Sequence
from typing import Final, final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from optim_family.cli.run_progress import can_redraw, duration
from optim_family.runs.labels import facts, labels
from optim_family.runs.run import FINISHED
from optim_family.study import execution
from optim_family.study.execution import State
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
        """The status in the run directory; `failed` if its process has failed and no other works on it."""
        over = state.status in FINISHED or state.status == "running"
        return "failed" if state.job in self.failed and not over else state.status

    def row(self, state: State) -> list[str]:
        """One row of the table."""
        record, steps = state.record, state.job.spec.steps
        time_left = ""
        if self.status(state) == "running" and record.get("elapsed") and record.get("step"):
            time_left = duration(record["elapsed"] / record["step"] * (steps - record["step"]))
        numbers = facts(record) if record else ""
        return [self.names[state.job], self.status(state), f"{state.step:,}/{steps:,}", time_left, numbers]

    def headline(self) -> str:
        """`3 of 11 finished, 2 running, 1 failed, 3 min left`."""
        states = self.refresh_states()
        counts = [(name, sum(self.status(s) == name for s in states)) for name in ("running", "failed")]
        parts = [f"{sum(s.status in FINISHED for s in states)} of {len(states)} finished"]
        parts += [f"{count} {name}" for name, count in counts if count]
        if seconds := self._seconds_left(states):
            parts.append(f"{duration(seconds)} left")
        return ", ".join(parts)

    def _seconds_left(self, states: Sequence[State]) -> float | None:
        """At the mean pace so far."""
        timed = [s for s in states if s.record.get("step") and s.record.get("elapsed")]
        if not timed:
            return None
        pace: float = sum(s.record["elapsed"] for s in timed) / sum(s.record["step"] for s in timed)
        unfinished = (s for s in states if s.status not in FINISHED)
        return pace * sum(s.job.spec.steps - s.step for s in unfinished) / self.workers


@final
class Display:
    """Shows the progress of a study at intervals; if quiet, only failures. Remembers the last time.

    A context manager that shows the final state at its end.
    """

    def __init__(self, progress: Progress, quiet: bool) -> None:
        self.progress, self._quiet, self._last = progress, quiet, -math.inf
        self._console = Console(stderr=True)
        self._live: Live | None = None
        if can_redraw() and not quiet:
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def refresh(self) -> None:
        """Update the display if its interval is over; called at every poll."""
        interval = REFRESH_SECONDS if self._live else LINE_SECONDS
        if self._quiet or time.monotonic() - self._last < interval:
            return
        self._last = time.monotonic()
        self._draw()
        for state in () if self._live else self.progress.refresh_states():
            if state.status == "running":
                self.log("  " + "  ".join(filter(None, self.progress.row(state))))

    def on_result(self, result: JobResult) -> None:
        """Print a line if the run of a process that ended has failed."""
        if execution.has_failed(result):
            self.progress.failed.add(result.job)
            reason = result.message or f"exit code {result.exit_code}"
            self.log(f"{self.progress.names[result.job]}: {reason}")

    def log(self, text: str) -> None:
        """Print a line that stays, above the live table."""
        if self._live:
            self._console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def __exit__(self, *exception: object) -> None:
        if not self._quiet:
            self._draw()
        if self._live:
            self._live.stop()

    def _draw(self) -> None:
        """Print the headline; in a terminal redraw it below the table of as many runs as fit."""
        if self._live is None:
            return self.log(self.progress.headline())
        table = Table(*HEADERS, box=None, pad_edge=False, header_style="bold")
        for state in self.progress.refresh_states()[: max(1, self._console.height - 4)]:
            table.add_row(*self.progress.row(state), style=_STYLES.get(self.progress.status(state)))
        self._live.update(Group(table, Text(self.progress.headline())), refresh=True)
