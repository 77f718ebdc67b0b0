"""The scene of `sphere` as a page: turn the sphere by hand, play the path of gradient descent."""

from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import LogNorm, to_hex
from numpy.typing import ArrayLike

from optim_family.figures import html
from optim_family.theory.sphere import SETTLED, Scene
from optim_family.theory.sphere_figure import CAMERA, EXTENT, HEADING, KEY, LEVELS, VALLEY, figure


def page(scene: Scene) -> str:
    """One file that opens offline; its static figure is for print and for readers without JavaScript."""
    drawn = html.inline_svg(figure(scene), "s")
    last = len(scene.trajectory.tau) - 1
    values = {"heading": HEADING, "key": KEY, "figure": drawn, "last": last}
    return html.render(
        "sphere.html", scripts=("page.js", "sphere.js"), data_json=html.as_json(data(scene)), **values
    )


def data(scene: Scene) -> dict[str, Any]:
    """Path, flow, valley and camera; points have norm 1, the flow begins at the step `settled`."""
    toy, path, flow = scene.toy, scene.trajectory, scene.flow
    valley = toy.minimiser(toy.sharp_end + torch.linspace(*EXTENT, 200, dtype=torch.float64))
    sharpness = toy.sharpnesses(valley).numpy()
    norm = LogNorm(sharpness.min() / 1.3, sharpness.max())
    return {
        "toy": {"bend": toy.bend, "steepness": toy.steepness, "sharpEnd": toy.sharp_end},
        "highest": LEVELS[-1],
        "camera": [CAMERA.longitude, CAMERA.elevation],
        "settled": SETTLED,
        "path": _rounded(path.directions),
        "flow": _rounded(flow.points),
        "valley": _rounded(valley),
        "colors": [to_hex(colour) for colour in colormaps[VALLEY["cmap"]](norm(sharpness))],
        "tau": _rounded(path.tau),
        "loss": _rounded(path.losses),
        "sharpness": [None, *_rounded(scene.sharpness), None],
        "threshold": _rounded(2 / path.effective_lr),
        "flowSharpness": _rounded(flow.sharpness),
    }


def _rounded(values: ArrayLike) -> list[Any]:
    """Six significant digits, which is finer than a pixel."""
    array = np.asarray(values, dtype=np.float64)
    flat = [float(f"{x:.6g}") for x in array.ravel().tolist()]
    rounded: list[Any] = np.reshape(flat, array.shape).tolist()
    return rounded
