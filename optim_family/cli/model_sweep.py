"""Execute `optim-family models check --sweep`: measure models one after the other, and write the page."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from optim_family import __version__, resources
from optim_family.cli.output import Output
from optim_family.cli.run_progress import LifeSign, can_redraw, duration
from optim_family.conformance import model_table
from optim_family.conformance.model_process import measure_model
from optim_family.conformance.model_rows import (
    CHANGED,
    DIFFERS,
    Row,
    RowFile,
    is_current,
    read_rows,
    verdict,
)
from optim_family.errors import OptimFamilyError, Stopped, UsageError, first_three
from optim_family.networks.families import catalogue
from optim_family.networks.families.catalogue import Selection
from optim_family.runs.atomic_files import replace_atomically
from optim_family.training.stop_signal import StopSignal

FOLDER: Final = Path("runs/sweep")
SECONDS: Final = 300


def sweep(output: Output, patterns: Sequence[str], folder: Path, seconds: int, dry_run: bool) -> None:
    """Measure the selected models that are not measured yet, or with `dry_run` list them.

    Raises:
        UsageError: a name is wrong, or nothing that is selected is installed.
        OptimFamilyError: a number differs, or a measurement changed something.
        Stopped: by a signal; the finished models are kept.
    """
    with LifeSign(output.quiet) as sign:
        selection = catalogue.select(patterns, sign)
    notices = [f"{name} is not installed; its models need: pip install {name}" for name in selection.missing]
    if not selection.models:
        raise UsageError("; ".join(notices))
    for notice in notices:
        output.say(notice)
    if dry_run:
        return _list(output, selection, folder, seconds)
    with RowFile(folder) as file:
        _measure_all(output, selection, file, seconds)
        rows = [file.rows[model] for model in selection.models]
    _print_result(output, rows, selection, folder)


def _list(output: Output, selection: Selection, folder: Path, seconds: int) -> None:
    """Print the models, each with its verdict or `waiting`."""
    rows = read_rows(folder)
    current = {model: is_current(rows.get(model), _versions(model), seconds) for model in selection.models}
    states = [[model, verdict(rows[model]) if current[model] else "waiting"] for model in selection.models]
    value = [{"model": model, "state": state} for model, state in states]
    output.result(
        {"folder": str(folder), "missing": selection.missing, "models": value}, ["model", "state"], states
    )


def _measure_all(output: Output, selection: Selection, file: RowFile, seconds: int) -> None:
    """Append a row for each model without a current one; the page is written after each."""
    waiting = [m for m in selection.models if not is_current(file.rows.get(m), _versions(m), seconds)]
    known = len(selection.models) - len(waiting)
    if known:
        output.say(f"{known} of {len(selection.models)} models are measured already")
    _write_page(file, len(waiting), selection.missing)
    with StopSignal().install() as stop, LifeSign(output.quiet) as sign:
        for number, model in enumerate(waiting, 1):
            clock = _Clock(f"{number} of {len(waiting)}: {model}", sign, stop)
            try:
                row = measure_model(model, seconds, clock.tick)
            except Stopped as error:
                left = len(waiting) - number + 1
                raise type(error)(f"stopped; {left} models are left: repeat the command to go on") from None
            file.append({**row, "versions": _versions(model)})
            output.say(f"{clock.title}: {row.get('refused') or verdict(row)}, {clock.time}")
            _write_page(file, len(waiting) - number, selection.missing)


@final
class _Clock:
    """Shows in a terminal how long a model takes, and raises Stopped on a signal. Remembers the start."""

    def __init__(self, title: str, sign: LifeSign, stop: StopSignal) -> None:
        self.title, self._sign, self._stop, self._start = title, sign, stop, time.monotonic()

    @property
    def time(self) -> str:
        """The time since the start."""
        return duration(time.monotonic() - self._start)

    def tick(self) -> None:
        """Show the time."""
        self._stop.check()
        if can_redraw():
            self._sign(f"{self.title}, {self.time} …")


def _versions(model: str) -> dict[str, str]:
    """The versions of this package, of torch and of the package that a model comes from."""
    package = catalogue.PACKAGES[model.partition("/")[0]]
    installed = {name: resources.version(name) for name in ("torch", package)}
    return {"optim-family": __version__, **{name: v for name, v in installed.items() if v}}


def _write_page(file: RowFile, waiting: int, missing: Sequence[str]) -> None:
    page = model_table.page(list(file.rows.values()), waiting, missing)
    replace_atomically(file.path.with_name(model_table.FILE), page)


def _print_result(output: Output, rows: Sequence[Row], selection: Selection, folder: Path) -> None:
    """Print the rows; raise OptimFamilyError if a number differs or something was changed."""
    verdicts = {row["model"]: verdict(row) for row in rows}
    page = folder / model_table.FILE
    models = [{**row, "verdict": verdicts[row["model"]]} for row in rows]
    value = {"page": str(page), "missing": selection.missing, "models": models}
    output.result(value, model_table.HEADERS, [model_table.cells(row) for row in rows])
    if not output.json:
        output.say(f"\n{model_table.summary(rows, 0)}\npage: {page}")
    differing = [model for model, word in verdicts.items() if word == DIFFERS]
    changed = [model for model, word in verdicts.items() if word == CHANGED]
    faults = [f"λ₁ of {first_three(differing)} differs from differences of gradients"] * bool(differing)
    faults += [f"measuring {first_three(changed)} changes it"] * bool(changed)
    if faults:
        raise OptimFamilyError(f"{'; '.join(faults)}: see {page}")
