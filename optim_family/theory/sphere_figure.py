"""The scene of `sphere` as a figure and as a film."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from numpy.typing import ArrayLike
from PIL import Image

from optim_family.figures.curves import Array, plain_ticks
from optim_family.figures.style import COLOURS, GREY, RUN_THRESHOLD, applied
from optim_family.theory.sphere import SETTLED, Camera, Scene

CAMERA: Final = Camera()
PIXELS: Final = 700
# Losses at which contours are drawn; the sphere is darkest at the last.
LEVELS: Final = (0.02, 0.08, 0.18, 0.32, 0.5, 0.72, 1.0)
PATH: Final[dict[str, Any]] = {"color": "#00305c", "linewidth": 0.8, "solid_joinstyle": "round"}
# A white line with black edges is visible on every background.
EDGES: Final = [patheffects.withStroke(linewidth=3.2, foreground="black")]
FLOW: Final[dict[str, Any]] = {"color": "white", "linewidth": 1.6, "path_effects": EDGES}
THRESHOLD: Final[dict[str, Any]] = RUN_THRESHOLD | {"color": COLOURS[1], "linewidth": 1.8}
ITERATE: Final[dict[str, Any]] = {"color": PATH["color"], "marker": "o", "markersize": 6, "mec": "white"}
CURVE: Final = {**PATH, "linewidth": 1.3}
VALLEY: Final[dict[str, Any]] = {"cmap": "YlOrRd", "linewidth": 11, "capstyle": "round"}
EXTENT: Final = (0.38, 3.5)  # longitudes between which the valley is drawn, from its sharp end
HEADING: Final = "Gradient descent with weight decay, where the loss sees the direction of the weights only"
KEY: Final = (
    "Sphere: dark where the loss is high.  Valley: the minimisers, from sharp (red) to flat (yellow)."
)
# Labels on the sphere: text and position.
LABELS: Final = (("sharp", -0.8, -0.04), ("flat", 0.72, -0.13))
FILM_DPI: Final = 75
# Milliseconds a frame: the first ones slowly, and a rest at the end.
SLOW_FRAMES, SLOW, FAST, REST = 12, 300, 60, 3000
VALLEY_ROWS: Final = 60


@final
@dataclass(frozen=True)
class AnimatedLine:
    """A line that grows by a point per step.

    Attributes:
        line: on its axes.
        points: its points, [m, 2], the first at the step `begin`.
        tail: how many points before the last are visible; all if None.
    """

    line: Line2D
    points: Array
    begin: int = 0
    tail: int | None = None

    def show(self, step: int) -> None:
        """Show the line up to a step."""
        end = max(0, step + 1 - self.begin)
        first = 0 if self.tail is None else max(0, end - 1 - self.tail)
        self.line.set_data(*self.points[first:end].T)


def figure(scene: Scene) -> Figure:
    """The sphere, with sharpness and loss against τ on its right."""
    fig, lines = _compose(scene)
    for line in lines:
        line.show(len(scene.trajectory.tau) - 1)
    return fig


def film(scene: Scene) -> bytes:
    """The same, one frame a step, as an animated GIF."""
    fig, lines = _compose(scene)
    for line in lines:
        line.line.set_animated(True)
    canvas: Any = FigureCanvasAgg(fig)
    fig.set_dpi(FILM_DPI)
    frames = []
    with applied():
        canvas.draw()
        background = canvas.copy_from_bbox(fig.bbox)
        for step in range(len(scene.trajectory.tau)):
            canvas.restore_region(background)
            for line in lines:
                line.show(step)
                fig.draw_artist(line.line)
            frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return _gif(frames)


def _gif(frames: Sequence[Image.Image]) -> bytes:
    """All frames in one palette, made from the first and the last frame and the valley."""
    both = [np.asarray(frames[0]), np.asarray(frames[-1])]
    valley = colormaps[VALLEY["cmap"]](np.linspace(0, 1, frames[0].width), bytes=True)[None, :, :3]
    colours = np.concatenate([*both, valley.repeat(VALLEY_ROWS, axis=0)])
    palette = Image.fromarray(colours).quantize(256, method=Image.Quantize.MEDIANCUT)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [SLOW if i < SLOW_FRAMES else FAST for i in range(len(small) - 1)] + [REST]
    buffer = io.BytesIO()
    small[0].save(buffer, "GIF", save_all=True, append_images=small[1:], duration=durations, loop=0)
    return buffer.getvalue()


def _compose(scene: Scene) -> tuple[Figure, list[AnimatedLine]]:
    """The figure and its animated lines, those on top last."""
    with applied():
        fig = Figure(figsize=(11, 6.2))
        fig.text(0.012, 0.975, HEADING, va="top", fontsize=12, fontweight="bold")
        fig.text(0.012, 0.93, KEY, va="top", color=GREY)
        sphere = fig.add_axes((0.0, 0.0, 0.555, 0.9))
        above = fig.add_axes((0.62, 0.505, 0.36, 0.33))
        below = fig.add_axes((0.62, 0.08, 0.36, 0.33), sharex=above)
        draw_sphere(sphere, scene)
        lines = [*draw_paths(sphere, scene), *draw_sharpness(above, scene), *draw_loss(below, scene)]
        for ax in (above, below):
            ax.set_yscale("log")
            ax.legend(loc="upper right")
        plain_ticks(above, 1.0)
        below.set_xlabel("τ = ηλt")
    return fig, lines


def draw_sphere(ax: Axes, scene: Scene) -> None:
    """The sphere, dark where the loss is high, with contours and the valley."""
    points, depth = CAMERA.disc(PIXELS)
    loss = scene.toy.loss(torch.from_numpy(np.nan_to_num(points, nan=1.0))).numpy()
    image = colormaps["bone_r"](0.02 + 0.5 * np.sqrt(np.minimum(loss / LEVELS[-1], 1)))
    image[..., :3] *= (0.84 + 0.16 * np.nan_to_num(depth))[..., None]
    disc = Circle((0, 0), 1, transform=ax.transData)
    box = (-1, 1, -1, 1)
    ax.imshow(image, extent=box, origin="lower", interpolation="bilinear").set_clip_path(disc)
    inside = np.where(np.isfinite(depth), loss, np.nan)
    ax.contour(inside, LEVELS, extent=box, colors="#40506a", linewidths=0.5, alpha=0.6)
    draw_valley(ax, scene).set_clip_path(disc)
    for word, x, y in LABELS:
        ax.text(x, y, word, ha="center", va="center", fontsize=13, fontweight="bold", color=PATH["color"])
    ax.set(xlim=(-1.04, 1.04), ylim=(-1.04, 1.04), aspect="equal")
    ax.set_axis_off()


def draw_valley(ax: Axes, scene: Scene) -> LineCollection:
    """The minimisers, coloured by sharpness."""
    toy = scene.toy
    points = toy.minimiser(toy.sharp_end + torch.linspace(*EXTENT, 600, dtype=torch.float64))
    line = CAMERA.visible(points)
    sharpness = toy.sharpnesses(points).numpy()
    norm = LogNorm(sharpness.min() / 1.3, sharpness.max())
    pieces: Any = np.stack([line[:-1], line[1:]], axis=1)
    valley = LineCollection(pieces, array=sharpness[1:], norm=norm, zorder=1.5, **VALLEY)
    ax.add_collection(valley)
    return valley


def draw_paths(ax: Axes, scene: Scene) -> list[AnimatedLine]:
    """Gradient descent, and the flow on top."""
    x, y = CAMERA.visible(scene.trajectory.directions).T
    flow_x, flow_y = CAMERA.visible(scene.flow.points).T
    ax.plot(x[0], y[0], marker="o", markersize=7, color=PATH["color"])
    ax.annotate("start", (x[0], y[0]), (0, 9), textcoords="offset points", ha="center", fontsize=11)
    return [
        _animated_line(ax, x, y, **PATH),
        _animated_line(ax, flow_x, flow_y, SETTLED, **FLOW),
        _animated_line(ax, x, y, tail=0, **ITERATE),
    ]


def draw_sharpness(ax: Axes, scene: Scene) -> list[AnimatedLine]:
    """S of the flow and of the path, and the threshold 2/ℓ."""
    path, flow = scene.trajectory, scene.flow
    ax.set_title("Sharpness", loc="left")
    return [
        _animated_line(ax, flow.tau, flow.sharpness, SETTLED, label="sharpness-reduction flow", **FLOW),
        _animated_line(ax, path.tau, 2 / path.effective_lr, label="stability threshold 2/ℓ", **THRESHOLD),
        _animated_line(ax, path.tau[1:-1], scene.sharpness, 1, label="gradient descent", **CURVE),
    ]


def draw_loss(ax: Axes, scene: Scene) -> list[AnimatedLine]:
    """The loss of the path, and its mean as the flow predicts it."""
    path, flow = scene.trajectory, scene.flow
    mean, label = flow.sharpness * path.eta_lambda / (4 + flow.q), "its mean, by the flow: S ηλ / (4 + q)"
    ax.set_title("Loss", loc="left")
    return [
        _animated_line(ax, flow.tau, mean, SETTLED, label=label, **FLOW),
        _animated_line(ax, path.tau, path.losses, label="gradient descent", **CURVE),
    ]


def _animated_line(
    ax: Axes, x: ArrayLike, y: ArrayLike, begin: int = 0, tail: int | None = None, **style: Any
) -> AnimatedLine:
    (line,) = ax.plot(x, y, **style)
    return AnimatedLine(line, np.asarray(line.get_xydata()), begin, tail)
