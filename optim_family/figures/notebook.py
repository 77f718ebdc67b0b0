"""The interactive figure of runs in a notebook."""

import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from optim_family.analysis import run_summary
from optim_family.figures.run_page import run_page
from optim_family.runs.atomic_files import replace_atomically
from optim_family.runs.run import find_runs, read_run

_HEIGHT: Final = 1000  # pixels


@final
@dataclass(frozen=True)
class RunFigure:
    """An interactive figure: as the last line of a cell it is shown; `page` is its HTML, one file."""

    runs: int
    page: str = field(repr=False)

    def save(self, path: str | Path) -> None:
        """Write the page to a file that any browser opens without network.

        Raises:
            CorruptError: the file cannot be written.
        """
        replace_atomically(Path(path), self.page)

    def _repr_html_(self) -> str:
        """A frame for the page, whose scripts cannot reach the notebook."""
        return (
            f'<iframe srcdoc="{html.escape(self.page)}" sandbox="allow-scripts allow-downloads" '
            f'style="width: 100%; height: {_HEIGHT}px; border: 0" title="runs"></iframe>'
        )


def plot_runs(path: str | Path) -> RunFigure:
    """The interactive figure of every run in a folder and below it, as `compare --html` writes it.

    Args:
        path: a run directory, or a folder above run directories.

    Returns:
        A figure that a notebook shows; `save` writes it to a file.

    Raises:
        UsageError: there is no run directory.
        CorruptError: one of them is damaged.
    """
    runs = [read_run(folder) for folder in find_runs(Path(path))]
    summaries = [run_summary.summary(run) for run in runs]
    return RunFigure(len(runs), run_page(runs, summaries, title=f"Runs in {Path(path).name}"))
