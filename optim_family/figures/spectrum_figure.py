"""One figure of one point in training: the whole spectrum, the layers, and the mini-batches.

What was measured is drawn, each with λ₁ and the stability threshold as upright lines.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from optim_family.curvature.gauss_quadrature import SpectralDensity
from optim_family.errors import UsageError
from optim_family.figures import style
from optim_family.runs.labels import compact

Record = Mapping[str, Any]

# Inches.
HEAD, PANEL, BAR, AXIS = 0.6, 3.5, 0.24, 0.9
# A density below a tenth of that of one eigenvalue is the foot of a Gaussian.
FAINTEST = 0.1
POINTS = 2000


def figure(record: Record, *, title: str = "", subtitle: str = "") -> Figure:
    """Draw what was measured at one point: the density above, layers and mini-batches below.

    Args:
        record: as JSON: `view`, its name; `reading`, that of λ₁; and any of `density`, `trace`, `layers`,
            `batch_sharpness`.
        title: of the figure.
        subtitle: one line below it.

    Raises:
        UsageError: the record has nothing to draw.
    """
    layout = (("density",), ("layers", "batch_sharpness"))
    rows = [names for row in layout if (names := [name for name in row if record.get(name)])]
    if not rows:
        raise UsageError("nothing to draw: the record has no density, no layers and no batch sharpness")
    heights = [max(PANEL, AXIS + BAR * len(record["layers"] if "layers" in row else ())) for row in rows]
    with style.applied():
        fig = _sheet(title, subtitle, record["view"], sum(heights))
        parts: Any = fig.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)
        for part, row in zip(parts[:, 0], rows, strict=True):
            for name, ax in zip(row, part.subplots(1, len(row), squeeze=False)[0], strict=True):
                DRAW[name](ax, record)
                mark_top_eigenvalue(ax, record)
        lines = {str(line.get_label()): line for ax in fig.axes for line in ax.get_lines()}
        handles = [line for label, line in lines.items() if not label.startswith("_")]
        fig.legend(handles=handles, loc="upper right", ncols=3, frameon=False)
    return fig


def draw_density(ax: Axes, record: Record) -> None:
    """The density of all eigenvalues, its standard error as a band, and the height of a single eigenvalue."""
    density = SpectralDensity.from_record(record["density"])
    sigma = density.width
    grid = np.linspace(density.nodes.min() - 4 * sigma, density.nodes.max() + 4 * sigma, POINTS)
    middle, error = density.at(grid, sigma)
    single = 1 / (density.dim * sigma * np.sqrt(2 * np.pi))
    ax.set_yscale("log", nonpositive="clip")
    ax.set_ylim(FAINTEST * single, 3 * middle.max())
    ax.fill_between(grid, middle - error, middle + error, color=style.BODY, alpha=0.2, linewidth=0)
    ax.plot(grid, middle, color=style.BODY)
    ax.axvline(0, color=style.GREY, linewidth=0.6)
    ax.axhline(single, **style.ONE_EIGENVALUE)
    ax.text(1.01, single, "one\neigenvalue", transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    ax.set_title(f"Density of all {density.dim:,} eigenvalues", loc="left")
    ax.set_title(_evidence(density, record), **style.ASIDE)
    ax.set_xlabel("eigenvalue")


def draw_layers(ax: Axes, record: Record) -> None:
    """λ₁ of each layer's diagonal block as a bar with its error, the first layer on top."""
    layers: Mapping[str, Record] = record["layers"]
    values, errors = ([layer[field] for layer in layers.values()] for field in ("value", "error"))
    places = range(len(layers))
    ax.barh(places, values, xerr=errors, color=style.BODY, height=0.7, error_kw={"elinewidth": 1})
    ax.set_yticks(places, list(layers))
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.set_title("Each layer by itself", loc="left")
    ax.set_xlabel("λ₁ of the layer's block")


def draw_batches(ax: Axes, record: Record) -> None:
    """The quotients of the mini-batches in ascending order, their mean and its confidence interval."""
    batch: Record = record["batch_sharpness"]
    quotients = sorted(batch["quotients"])
    if batch["error"] is not None:
        low, high = batch["value"] - batch["error"], batch["value"] + batch["error"]
        ax.axvspan(low, high, color=style.MEAN_COLOUR, alpha=0.2, linewidth=0)
        ax.set_title(f"band: {100 * batch['confidence']:g} % confidence", **style.ASIDE)
    ax.axvline(batch["value"], label=f"batch sharpness {batch['value']:.4g}", **style.BATCH_MEAN)
    ax.plot(quotients, range(1, len(quotients) + 1), "o", color=style.BODY, markersize=4)
    ax.axvline(0, color=style.GREY, linewidth=0.6)
    ax.set_ylim(1 - 0.05 * len(quotients), 1.05 * len(quotients))
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    ax.set_title("Each mini-batch along its gradient", loc="left")
    ax.set_xlabel("gᵀHg / ‖g‖²")
    ax.set_ylabel("mini-batch, in order of the quotient")


def mark_top_eigenvalue(ax: Axes, record: Record) -> None:
    """λ₁ of the whole Hessian, and its threshold if there is one, as upright lines."""
    reading: Record = record["reading"]
    ax.axvline(reading["value"], label=f"λ₁ {reading['value']:.4g}", **style.TOP_EIGENVALUE)
    if reading["threshold"] is not None:
        ax.axvline(
            reading["threshold"], label=f"threshold {reading['threshold']:.4g}", **style.SPECTRUM_THRESHOLD
        )


def _sheet(title: str, subtitle: str, view: str, body: float) -> Figure:
    """A figure with its heading, and room for panels of `body` inches in height."""
    height = HEAD + body
    fig = Figure(figsize=(style.WIDTH, height))
    fig.set_layout_engine("constrained", rect=(0, 0, 1, 1 - HEAD / height))
    below = ", ".join([*([subtitle] if subtitle else []), f"{view.replace('-', ' ')} view"])
    style.head(fig, title, below)
    return fig


def _evidence(density: SpectralDensity, record: Record) -> str:
    directions = len(density.nodes)
    parts = [f"width {density.width:.3g}", f"{directions} direction{'s' * (directions > 1)}"]
    if trace := record.get("trace"):
        value, error = (compact(float(f"{trace[k]:.{n}g}")) for k, n in (("value", 4), ("standard_error", 2)))
        parts.insert(0, f"trace {value} ± {error}")
    return ", ".join(parts)


DRAW: dict[str, Callable[[Axes, Record], None]] = {
    "density": draw_density,
    "layers": draw_layers,
    "batch_sharpness": draw_batches,
}
