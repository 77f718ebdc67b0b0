"""The cases on one page: every statement, what came out, and its figure; it opens offline."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from optim_family.figures.html import inline_svg, render
from optim_family.figures.style import STYLE, save
from optim_family.runs.atomic_files import replace_atomically, writing
from optim_family.theory.verify import Verdict


def figure(verdict: Verdict) -> Figure | None:
    """The figure of a case; None where it failed."""
    if verdict.failure:
        return None
    with style.context(STYLE, after_reset=True):
        drawn = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = drawn.add_subplot()
        verdict.case.draw(axes, verdict.evidence)
        axes.set_title(verdict.case.claim, loc="left", wrap=True)
        axes.legend()
    return drawn


def write(verdicts: Sequence[Verdict], folder: Path) -> Path:
    """Every figure as <name>.svg and <name>.png, and all of them on one page.

    Returns:
        The page, index.html.

    Raises:
        CorruptError: the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for verdict in verdicts:
        drawn = figure(verdict)
        if drawn is not None:
            save(drawn, folder, verdict.case.name)
        shown.append((verdict, drawn and inline_svg(drawn, verdict.case.name)))
    page = folder / "index.html"
    replace_atomically(page, render("verify.html", shown=shown))
    return page
