"""The style of every figure: sizes, colours, line styles, markers, and how a figure is saved."""

import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.textpath import TextPath

from optim_family.errors import UsageError
from optim_family.runs.atomic_files import replace_atomically

# Okabe and Ito's colours without yellow. 7, 5 and 8 have no common factor: 280 different styles.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (7, 1.5, 1.5, 1.5)),
    (0, (2.5, 1)),
    (0, (6, 1.2, 1.2, 1.2, 1.2, 1.2)),
)
MARKERS = "osD^vP<>"
GREY, PALE = "#595959", "#e8e8e8"
ASIDE: dict[str, Any] = {"loc": "right", "color": GREY, "fontsize": 8, "fontweight": "normal"}
CROSS: dict[str, Any] = {"marker": "X", "markersize": 9, "mec": "white", "linestyle": ""}
RING: dict[str, Any] = {"marker": "o", "markersize": 7, "mfc": "none", "linestyle": ""}
STAR: dict[str, Any] = {"marker": "*", "markersize": 11, "mec": "white", "linestyle": ""}
UNSTABLE: dict[str, Any] = {"marker": "|", "markersize": 13, "mew": 2.2, "linestyle": ""}
EXIT: dict[str, Any] = {"markersize": 5, "linestyle": "", "clip_on": False, "zorder": 4}
BAND: dict[str, Any] = {"color": GREY, "alpha": 0.08, "linewidth": 0, "zorder": 0}

# Curves of runs.
TRAIN: dict[str, Any] = {"linewidth": 0.9, "linestyle": (0, (4, 2)), "marker": ""}
TEST: dict[str, Any] = {"linewidth": 1.7}
PEAK: dict[str, Any] = {"linewidth": 0.7, "linestyle": "-", "alpha": 0.45, "marker": ""}
SMALL_BATCHES: dict[str, Any] = {"linewidth": 1.3, "linestyle": (0, (4, 1.5, 1, 1.5, 1, 1.5)), "marker": ""}
RUN_THRESHOLD: dict[str, Any] = {"linewidth": 1.3, "linestyle": ":", "marker": ""}
# Predictions: gradient descent's steepest drift, and the mean loss of its oscillation.
DRIFT: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (8, 3)), "marker": ""}
MEAN: dict[str, Any] = {"linewidth": 1.3, "linestyle": (0, (1, 1.2)), "marker": ""}

# Spectra: what is measured, the mean of mini-batches, λ₁, its threshold, and how high one eigenvalue stands.
BODY, MEAN_COLOUR = COLOURS[0], COLOURS[2]
BATCH_MEAN: dict[str, Any] = {"color": MEAN_COLOUR, "linewidth": 1.6, "linestyle": (0, (5, 1.5))}
TOP_EIGENVALUE: dict[str, Any] = {"color": COLOURS[1], "linewidth": 1.4, "linestyle": "-"}
SPECTRUM_THRESHOLD: dict[str, Any] = {"color": "black", "linewidth": 1.4, "linestyle": ":"}
ONE_EIGENVALUE: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (1, 3))}

# Inches. Fixed distances, not an automatic arrangement: the same every time, and panels that line up.
WIDTH, LEFT, RIGHT, BETWEEN = 11.0, 0.65, 0.75, 0.75
PRINT: dict[str, float] = {"font.size": 9, "axes.titlesize": 10, "legend.fontsize": 8}  # points
STYLE: dict[str, Any] = PRINT | {
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.labelcolor": GREY,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.3,
    "svg.fonttype": "path",
    "svg.hashsalt": "optim-family",
    "pdf.fonttype": 42,  # fonts inside, text as text
}
FORMATS: Final[dict[str, dict[str, Any]]] = {  # with the metadata that would be new every time
    "svg": {"Date": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
}
_OWN: ContextVar[str | Path | None] = ContextVar("own style", default=None)


def applied(**changes: Any) -> AbstractContextManager[None]:
    """The context in which every figure is drawn and saved: this style, with changes, then the user's."""
    own = _OWN.get()
    return style.context([STYLE | changes, *([str(own)] if own else [])], after_reset=True)


@contextmanager
def own_style(name: str | Path | None) -> Iterator[None]:
    """A context in which a style of the user, a .mplstyle file or a name of matplotlib, goes before this one.

    Raises:
        UsageError: there is no such style.
    """
    token = _OWN.set(name)
    try:
        try:
            with applied():
                pass
        except OSError:
            raise UsageError(f"there is no matplotlib style {str(name)!r}; give a file or a name") from None
        yield
    finally:
        _OWN.reset(token)


def head(figure: Figure, title: str, subtitle: str) -> None:
    """Write title and subtitle at the top of a figure, at a fixed distance; long ones are smaller."""
    width, height = figure.get_size_inches()
    for text in (
        figure.text(0.012, 1 - 0.12 / height, title, va="top", fontsize=12, fontweight="bold"),
        figure.text(0.012, 1 - 0.36 / height, subtitle, va="top", color=GREY),
    ):
        if text.get_text():
            _shrink_to(text, 0.976 * width)


def _shrink_to(text: Text, width: float) -> None:
    """Reduce the font of a text that is wider than this, in inches."""
    size = float(text.get_fontsize())
    path = TextPath((0, 0), text.get_text(), size=size, prop=text.get_fontproperties())
    inches = path.get_extents().width / 72
    if inches > width:
        text.set_fontsize(size * width / inches)


def save(
    figure: Figure, folder: Path, stem: str = "figure", formats: Sequence[str] = ("svg", "png")
) -> list[Path]:
    """Write <stem>.svg, <stem>.png, … into a folder, the same bytes every time; formats of `FORMATS`.

    Returns:
        The paths.

    Raises:
        CorruptError: the folder cannot be written.
    """
    paths = [folder / f"{stem}.{form}" for form in formats]
    for path, form in zip(paths, formats, strict=True):
        buffer = io.BytesIO()
        with applied():
            figure.savefig(buffer, format=form, dpi=150, metadata=FORMATS[form])
        replace_atomically(path, buffer.getvalue())
    return paths


def escape_mathtext(text: str) -> str:
    """One line of at most 140 characters in which a dollar does not begin mathematics."""
    fitting = text if len(text) <= 140 else f"{text[:50]} … {text[-85:]}"
    return fitting.replace("$", r"\$")
